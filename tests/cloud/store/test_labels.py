"""Labels keep their history, and the newest counts."""

import uuid

import pytest
from sqlalchemy import delete, select, update

from cloud.store.labels import KeyReusedError, Label, NewLabel, add_label, current_labels, label_history, label_page
from cloud.store.schema import labels, samples
from shared.errors import StorageError

ACTOR = "api:CI (abc)"


@pytest.fixture
async def sample_ids(add) -> list[uuid.UUID]:
    return [uuid.UUID(bytes=sample_id) for sample_id in await add(count=3)]


async def test_the_newest_label_counts_and_the_history_stays(store, sample_ids) -> None:
    first, second, third = sample_ids
    for label, author in ((Label.UNSURE, "Ada"), (Label.REAL, "Grace"), (Label.FALSE_ALARM, "Ada")):
        await add_label(store, first, NewLabel(label, author, f"{author} says {label}"), ACTOR)
    await add_label(store, second, NewLabel(Label.MISSED, "Ada"), ACTOR)
    async with store.reading() as connection:
        history = await label_history(connection, first)
        numbers = dict((await connection.execute(select(samples.c.sample_id, samples.c.number))).all())
        current = await current_labels(connection, list(numbers.values()))
        page = await label_page(connection, size=2)
        rest = await label_page(connection, before=page[-1].number)
        listed = await label_page(connection, only_current=True)
    assert [(item.label, item.author, item.is_current) for item in history] == [
        (Label.FALSE_ALARM, "Ada", True),
        (Label.REAL, "Grace", False),
        (Label.UNSURE, "Ada", False),
    ]
    assert history[1].note == "Grace says real"
    by_id = {uuid.UUID(bytes=sample_id): current.get(number) for sample_id, number in numbers.items()}
    assert by_id == {first: Label.FALSE_ALARM, second: Label.MISSED, third: None}
    assert [item.sample_id for item in page + rest] == [second, first, first, first]
    assert [(item.sample_id, item.label) for item in listed] == [(second, Label.MISSED), (first, Label.FALSE_ALARM)]


async def test_a_repeated_request_stores_nothing_and_a_reused_key_is_refused(store, sample_ids) -> None:
    first, second, _ = sample_ids
    new = NewLabel(Label.REAL, "Ada", "a crack", client_key="request-1")
    stored, is_new = await add_label(store, first, new, ACTOR)
    again, is_new_again = await add_label(store, first, new, ACTOR)
    assert (is_new, is_new_again, again) == (True, False, stored)
    await add_label(store, second, new, "api:other (xyz)")  # the key of another client
    for sample_id, other in ((first, NewLabel(Label.UNSURE, "Ada", "a crack", "request-1")), (second, new)):
        with pytest.raises(KeyReusedError, match="request-1"):
            await add_label(store, sample_id, other, ACTOR)
    async with store.reading() as connection:
        assert len(await label_page(connection)) == 2


async def test_a_label_needs_a_stored_sample_cannot_be_changed_and_goes_with_its_sample(store, sample_ids) -> None:
    assert await add_label(store, uuid.uuid4(), NewLabel(Label.REAL, "Ada"), ACTOR) is None
    await add_label(store, sample_ids[0], NewLabel(Label.REAL, "Ada"), ACTOR)
    with pytest.raises(StorageError, match="append-only"):
        async with store.writing() as connection:
            await connection.execute(update(labels).values(label="unsure"))
    async with store.writing() as connection:
        await connection.execute(delete(samples))
    async with store.reading() as connection:
        assert await label_page(connection) == ()
