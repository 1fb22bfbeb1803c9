"""Labelled rows of an expired partition: all of them stay, however many, with what changes while they are copied."""

import time
import uuid

import pytest
from sqlalchemy import delete, func, insert, select, update

from cloud.settings import StoreLocation
from cloud.store.contents import stored_payload
from cloud.store.fleet_queries import fleet_summary
from cloud.store.labels import Label, NewLabel, add_label
from cloud.store.postgres import expiry, keeping
from cloud.store.postgres.connecting import connect
from cloud.store.postgres.partitions import LEAST_NUMBERS, partitions_of
from cloud.store.retention import remove_old
from cloud.store.schema import anomaly_maps, labels, payloads, samples, verdict_counts, verdicts
from tests.cloud.store.test_partitions import add_old, counts, next_number
from tests.cloud.stored_samples import count_stored
from tests.postgres import TEMPLATE

LABELLED, OTHERS = 70, 20
ALL = {"payloads_days": 30, "verdicts_days": 365, "events_days": 0}


@pytest.fixture
def location(postgres_server, tmp_path):
    """Location of a database of its own: partitions stay when its rows are removed."""
    name = f"kept_{uuid.uuid4().hex}"
    postgres_server.make(name, TEMPLATE)
    yield StoreLocation(tmp_path, postgres_server.url(name))
    postgres_server.drop(name)


@pytest.fixture
async def driver(location):
    connection = await connect(location.url)
    yield connection
    await connection.close()


async def label_first(store, count: int) -> None:
    """Label the first samples."""
    given = {"label": "real", "author": "anna", "note": "", "at_s": 1.0, "actor": "test"}
    first = select(samples.c.number).order_by(samples.c.number).limit(count)
    async with store.writing() as connection:
        numbers = (await connection.execute(first)).scalars().all()
        await connection.execute(insert(labels), [{"sample_number": number, **given} for number in numbers])


async def fill_next_partition(store, add, driver) -> None:
    await next_number(driver, LEAST_NUMBERS + 1)
    await add_old(store, add, count=1, days=1)


async def helpers(driver) -> list[str]:
    """Tables and functions that a copy has made."""
    tables = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relname ~ '^(kept|replaced|expired)_'"
    functions = "SELECT proname::text FROM pg_proc WHERE proname = 'note_kept_change'"
    return [row[0] for query in (tables, functions) for row in await driver.fetch(query)]


async def counted(store) -> tuple[int, int]:
    """Counted verdicts of all devices and of the device."""
    of_device = select(func.sum(verdict_counts.c.verdicts)).where(verdict_counts.c.device_id == "one")
    async with store.reading() as connection:
        in_all = sum((await fleet_summary(connection, alive_since_s=0.0)).decisions.values())
        return in_all, int((await connection.execute(of_device)).scalar_one())


async def test_a_partition_with_many_labels_is_dropped_and_each_labelled_row_stays(store, add, driver, monkeypatch):
    monkeypatch.setattr(keeping, "MOST_ROWS", 16)
    ids = await add_old(store, add, count=LABELLED + OTHERS)
    await label_first(store, LABELLED)
    await fill_next_partition(store, add, driver)
    removed = await remove_old(store, **ALL, labelled_days=500)
    assert (removed["payloads"], removed["verdicts"]) == (OTHERS, OTHERS)
    assert await counts(store) == [LABELLED + 1] * 4
    assert await counted(store) == (LABELLED + 1, LABELLED + 1)
    assert await count_stored(store, ids) == LABELLED
    assert await driver.fetchval("SELECT count(*) FROM sample_keys") == LABELLED + 1
    assert [item.first for item in await partitions_of(driver, "samples")][:2] == [None, LEAST_NUMBERS + 1]
    assert await helpers(driver) == []
    assert (await stored_payload(store, uuid.UUID(bytes=ids[LABELLED - 1]))).message.data
    removed = await remove_old(store, **ALL, labelled_days=100)  # rows of the rest expire as others
    assert (removed["verdicts"], await counted(store)) == (LABELLED, (1, 1))


async def test_changes_of_rows_that_are_copied_are_kept(store, add, driver, monkeypatch):
    ids = [uuid.UUID(bytes=sample_id) for sample_id in await add_old(store, add, count=6)]
    await label_first(store, 3)
    await fill_next_partition(store, add, driver)
    catch_up, runs = expiry._catch_up, list[int]()

    async def change_meanwhile(*given):
        runs.append(1)
        if len(runs) == 1:  # all rows of payloads are copied
            await add_label(store, ids[4], NewLabel(Label.REAL, "anna"), "test")
            async with store.writing() as connection:
                first = select(samples.c.number).where(samples.c.sample_id == ids[0].bytes)
                await connection.execute(delete(samples).where(samples.c.number.in_(first)))
                second = select(samples.c.number).where(samples.c.sample_id == ids[1].bytes)
                changed = update(payloads).where(payloads.c.number.in_(second))
                await connection.execute(changed.values(segment_start=7))
        await catch_up(*given)

    monkeypatch.setattr(expiry, "_catch_up", change_meanwhile)
    removed = await remove_old(store, **ALL, labelled_days=500)
    assert len(runs) == 2
    assert (removed["payloads"], removed["verdicts"]) == (2, 2)
    assert await count_stored(store, [item.bytes for item in ids]) == 3
    for table in (samples, payloads, verdicts, anomaly_maps):
        async with store.reading() as connection:
            assert (await connection.execute(select(func.count()).select_from(table))).scalar_one() == 4
    assert await driver.fetchval("SELECT count(*) FROM payloads WHERE segment_start = 7") == 1
    assert await counted(store) == (4, 4)


async def test_rows_of_the_rest_stay_when_the_next_partition_goes(store, add, driver):
    first = await add_old(store, add, count=2)
    await label_first(store, 1)
    await fill_next_partition(store, add, driver)
    await remove_old(store, **ALL)
    await next_number(driver, 2 * LEAST_NUMBERS + 1)
    await add_old(store, add, count=1, days=1)
    async with store.writing() as connection:
        await connection.execute(update(verdicts).values(judged_at_s=time.time() - 400 * 86_400))
    removed = await remove_old(store, **ALL)
    assert (removed["verdicts"], await counts(store)) == (1, [2, 1, 2, 2])
    assert await count_stored(store, first) == 1
    assert await partitions_of(driver, "samples") == await partitions_of(driver, "payloads")


@pytest.mark.parametrize("ended_at", ["copying", "finishing"])
async def test_a_run_goes_on_where_a_killed_one_ended(store, add, driver, monkeypatch, ended_at):
    ids = await add_old(store, add, count=5)
    await label_first(store, 2)
    await fill_next_partition(store, add, driver)

    async def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if ended_at == "copying":
            patched.setattr(keeping.Keeping, "catch_up", killed)
        else:
            patched.setattr(expiry, "_drop_verdicts", killed)
        with pytest.raises(KeyboardInterrupt):
            await remove_old(store, **ALL)
    assert await helpers(driver) != []
    async with store.writing() as connection:  # a row that was kept is deleted before the next run
        one = select(samples.c.number).where(samples.c.sample_id == ids[0])
        await connection.execute(delete(samples).where(samples.c.number.in_(one)))
    assert (await remove_old(store, **ALL))["verdicts"] == 3
    assert (await counts(store), await counted(store)) == ([2] * 4, (2, 2))
    assert await driver.fetchval("SELECT count(*) FROM sample_keys") == 2
    assert await helpers(driver) == []
