"""Verdicts that a store refuses become undecided, and hold up no others; a store that fails is tried again."""

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from cloud.serving import verdict_writer
from cloud.serving.verdict_writer import REFUSED, store_or_refuse
from cloud.store.judging import WaitingSample, store_verdicts, waiting_samples
from cloud.store.schema import verdicts
from cloud.store.verdict_rows import VERDICT_COLUMNS
from shared.errors import StorageError
from shared.samples import Decision, Verdict


def verdict(waiting: WaitingSample, **more: object) -> Verdict:
    facts = {"decision": Decision.NORMAL, "p_value": 0.5, "bundle_id": "b-1-0"} | more
    return Verdict(sample_id=waiting.sample_id, **facts)


async def decisions(store) -> dict[int, tuple[str, str]]:
    """Decision and reason of each stored verdict, by number."""
    query = select(verdicts.c.number, verdicts.c.decision, verdicts.c.reason)
    async with store.reading() as connection:
        return {number: (decision, reason) for number, decision, reason in await connection.execute(query)}


def no_failure(error: Exception) -> None:
    raise AssertionError(error)


@pytest.mark.parametrize(
    "more",
    [{"reason": "\udcff"}, {"bundle_id": Path("b-1-0")}, {"contributions": (("\udcff", 1.0),)}],
    ids=["a text for the driver", "a type for the driver", "the JSON of a column"],
)
async def test_a_refused_verdict_becomes_undecided_with_the_reason_and_the_others_stay(store, add, more):
    await add(count=9)
    waiting = await waiting_samples(store, 100)
    judged = [(item, verdict(item)) for item in waiting]
    for place in (2, 7):
        judged[place] = waiting[place], verdict(waiting[place], **more)
    stored = await store_or_refuse(store, judged, no_failure)
    assert stored.refused == []
    assert sorted(item.number for item, _ in stored.judged) == [item.number for item in waiting]
    cursors = [item.event.cursor for item in stored.written]
    assert len(cursors) == 9
    assert cursors == sorted(cursors)
    found = await decisions(store)
    undecided = {number for number, (decision, _) in found.items() if decision == "undecided"}
    assert undecided == {waiting[2].number, waiting[7].number}
    assert all(found[number][1].startswith(REFUSED) for number in undecided)
    assert "\udcff" not in str(found)
    assert await waiting_samples(store, 100) == []


async def test_an_error_of_the_code_refuses_no_verdict(store, add, monkeypatch):
    async def fail(*_: object) -> None:
        raise TypeError("a bug")

    await add(count=2)
    waiting = await waiting_samples(store, 100)
    monkeypatch.setattr(store, "add_verdicts", fail)
    with pytest.raises(TypeError, match="a bug"):
        await store_or_refuse(store, [(item, verdict(item)) for item in waiting], no_failure)
    monkeypatch.undo()
    assert await decisions(store) == {}
    assert await waiting_samples(store, 100) == waiting


async def test_a_sample_that_gets_no_verdict_at_all_holds_up_no_other(store, add):
    """A number that has a verdict already, as in a damaged store."""
    await add(count=3)
    waiting = await waiting_samples(store, 100)
    values = (waiting[1].number, 0.0, "one", "lab", "tabular", "forward", "normal", 0.5, False, "b", "", [], [])
    async with store.writing() as connection:
        await connection.execute(insert(verdicts), [dict(zip(VERDICT_COLUMNS, values, strict=True))])
    stored = await store_or_refuse(store, [(item, verdict(item)) for item in waiting], no_failure)
    assert stored.refused == [waiting[1]]
    assert {item.number for item, _ in stored.judged} == {waiting[0].number, waiting[2].number}
    assert len(await decisions(store)) == 3


async def test_a_store_that_cannot_be_written_is_tried_again_with_the_same_verdicts(store, add, monkeypatch):
    monkeypatch.setattr(verdict_writer, "RETRY_MIN_S", 0.001)
    failures: list[Exception] = []

    async def sometimes(store, judged, places):
        if len(failures) < 3:
            raise StorageError("disk full")
        return await store_verdicts(store, judged, places)

    monkeypatch.setattr(verdict_writer, "store_verdicts", sometimes)
    await add(count=2)
    waiting = await waiting_samples(store, 100)
    judged = [(waiting[0], verdict(waiting[0])), (waiting[1], replace(verdict(waiting[1]), reason="\udcff"))]
    stored = await store_or_refuse(store, judged, failures.append)
    assert [str(error) for error in failures] == ["disk full"] * 3
    assert [item.decision for _, item in sorted(stored.judged, key=lambda pair: pair[0].number)] == [
        Decision.NORMAL,
        Decision.UNDECIDED,
    ]
