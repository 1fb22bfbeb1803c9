"""Partitions of a PostgreSQL store: made ahead, passed by the queue, dropped by retention, and migrated with rows."""

import asyncio
import itertools
import time
import uuid

import pytest
from alembic import command
from sqlalchemy import Connection, func, select

from cloud.settings import StoreLocation
from cloud.store import open_store
from cloud.store.contents import stored_payload
from cloud.store.copying import copy_rows
from cloud.store.fleet_queries import fleet_summary
from cloud.store.inbox import unpack_next
from cloud.store.judging import backlog, waiting_samples
from cloud.store.labels import Label, NewLabel, add_label
from cloud.store.migrate import alembic_configuration, newest_revision, upgrade
from cloud.store.postgres import expiry
from cloud.store.postgres.connecting import connect, new_engine
from cloud.store.postgres.partitions import LEAST_NUMBERS, REST, next_partition, partitions_of
from cloud.store.queries import is_waiting, judged_sample
from cloud.store.retention import remove_old
from cloud.store.schema import anomaly_maps, labels, payloads, samples, verdict_counts, verdicts
from cloud.store.share_links import add_share
from tests.cloud.store.test_store import judge_all
from tests.cloud.stored_samples import count_stored
from tests.postgres import TEMPLATE

AGES = {"payloads_days": 30, "verdicts_days": 365, "events_days": 0}
TABLES = (samples, payloads, verdicts, anomaly_maps)


@pytest.fixture
def location(postgres_server, tmp_path):
    """Location of a database of its own: partitions stay when its rows are removed."""
    name = f"partitions_{uuid.uuid4().hex}"
    postgres_server.make(name, TEMPLATE)
    yield StoreLocation(tmp_path, postgres_server.url(name))
    postgres_server.drop(name)


@pytest.fixture
async def driver(location):
    connection = await connect(location.url)
    yield connection
    await connection.close()


async def bounds(driver, table: str = "samples") -> list[tuple[int | None, int]]:
    return [(item.first, item.end) for item in await partitions_of(driver, table)]


async def next_number(driver, number: int) -> None:
    await driver.execute(f"SELECT setval('samples_number_seq', {number}, false)")


async def counts(store) -> list[int]:
    async with store.reading() as connection:
        return [(await connection.execute(select(func.count()).select_from(table))).scalar_one() for table in TABLES]


async def add_old(store, add, count: int = 4, days: float = 400.0) -> list[bytes]:
    ids = await add(count=count)
    await judge_all(store, judged_at_s=time.time() - days * 86_400)
    return ids


def test_the_number_of_partitions_stays_small():
    found, last = [REST, next_partition([REST], 0)], 1
    while last < 10**9:
        last = found[-1].end
        found.append(next_partition(found, last))
    assert len(found) < 60
    while last < 5 * 10**9:  # retention keeps a thousand million
        last = found[-1].end
        found.append(next_partition(found, last))
        found = [REST, *(item for item in found[1:] if item.end > last - 10**9)]
    assert len(found) < 15
    assert all(before.end == after.first for before, after in itertools.pairwise(found[1:]))


async def test_partitions_are_made_ahead_once_by_several_processes(store, location, driver):
    assert await bounds(driver) == [(None, 1), (1, LEAST_NUMBERS + 1)]
    async with open_store(location) as other:
        await asyncio.gather(*(target.make_room() for target in (store, other, store, other)))
    ahead = [(None, 1), (1, LEAST_NUMBERS + 1), (LEAST_NUMBERS + 1, 2 * LEAST_NUMBERS + 1)]
    assert [await bounds(driver, table.name) for table in TABLES] == [ahead] * 4


async def test_a_sample_without_a_partition_is_stored_nevertheless(store, add, driver):
    number = 7 * LEAST_NUMBERS
    await next_number(driver, number)
    ids = await add(count=3)
    await judge_all(store)
    assert await counts(store) == [3, 3, 3, 3]
    found = await driver.fetch("SELECT number, sample_id FROM samples ORDER BY number")
    assert [row["sample_id"] for row in found] == ids  # in the order of their arrival
    assert (await bounds(driver))[-1][1] > found[-1]["number"]


async def test_an_expired_partition_is_dropped_and_its_labelled_rows_stay(store, add, driver):
    old = await add_old(store, add)
    kept = uuid.UUID(bytes=old[0])
    await add_label(store, kept, NewLabel(Label.REAL, "anna"), "test")
    await next_number(driver, LEAST_NUMBERS + 1)
    new = await add()
    await judge_all(store)
    removed = await remove_old(store, **AGES, labelled_days=500)
    assert (removed["payloads"], removed["verdicts"]) == (3, 3)
    assert await counts(store) == [2, 2, 2, 2]
    lowest = [(await bounds(driver, table.name))[0] for table in TABLES]
    assert lowest == [(None, LEAST_NUMBERS + 1)] * 4
    async with store.reading() as connection:
        assert (await judged_sample(connection, kept)).record.sample_id == kept
        assert sum((await fleet_summary(connection, alive_since_s=0.0)).decisions.values()) == 2
        of_device = select(func.sum(verdict_counts.c.verdicts)).where(verdict_counts.c.device_id == "one")
        assert (await connection.execute(of_device)).scalar_one() == 2
    assert await stored_payload(store, kept) is not None
    assert await driver.fetchval("SELECT count(*) FROM sample_keys") == 2
    left = await driver.fetchval("SELECT count(*) FROM pg_class WHERE relname LIKE 'expired%'")
    assert (left, await count_stored(store, [*old[:1], *new])) == (0, 2)
    assert (await remove_old(store, **AGES, labelled_days=100))["verdicts"] == 1
    assert await count_stored(store, old) == 0


async def test_links_to_dropped_samples_go_with_them(store, add, driver):
    old = [uuid.UUID(bytes=sample_id) for sample_id in await add_old(store, add, count=2)]
    for sample_id in old:
        assert await add_share(store, sample_id, 3600.0, "anna") is not None
    await add_label(store, old[0], NewLabel(Label.REAL, "anna"), "test")
    await next_number(driver, LEAST_NUMBERS + 1)
    await add_old(store, add, count=1, days=1)
    await remove_old(store, **AGES, labelled_days=500)
    assert await driver.fetchval("SELECT count(*) FROM share_links") == 1
    assert (await remove_old(store, **AGES, labelled_days=100))["verdicts"] == 1
    assert await driver.fetchval("SELECT count(*) FROM share_links") == 0


async def test_no_foreign_key_leads_to_a_partition(store, driver):
    """A partition that a key refers to could not be dropped."""
    names = ", ".join(f"'{table.name}'::regclass" for table in TABLES)
    assert not await driver.fetch(f"SELECT conname FROM pg_constraint WHERE confrelid IN ({names})")


async def test_payloads_expire_before_their_verdicts(store, add, driver):
    await add_old(store, add, days=40)
    await next_number(driver, LEAST_NUMBERS + 1)
    await add_old(store, add, count=1, days=1)
    removed = await remove_old(store, **AGES)
    assert (removed["payloads"], removed["verdicts"]) == (4, 0)
    assert await counts(store) == [5, 1, 5, 5]
    assert [(await bounds(driver, name))[0][1] for name in ("payloads", "samples")] == [LEAST_NUMBERS + 1, 1]


async def test_no_payload_outlives_its_sample_where_payloads_have_no_age(store, add, driver):
    await add_old(store, add)
    await next_number(driver, LEAST_NUMBERS + 1)
    await add_old(store, add, count=1, days=1)
    await remove_old(store, payloads_days=0, verdicts_days=365, events_days=0)
    assert await counts(store) == [1, 1, 1, 1]


@pytest.mark.parametrize("reason", ["waiting", "young", "current"])
async def test_a_partition_that_is_in_use_stays_whole(store, add, driver, reason):
    await add_old(store, add, days=31)  # a payload may stay for a fifth of its age longer
    if reason == "waiting":
        await add(count=1)
    if reason == "young":
        await add_old(store, add, count=1, days=1)
    if reason != "current":
        await next_number(driver, LEAST_NUMBERS + 1)
        await add()
    before = await counts(store)
    removed = await remove_old(store, **AGES)
    assert (removed["payloads"], await counts(store)) == (0, before)


async def test_a_sample_that_is_judged_while_its_partition_is_looked_at_keeps_its_verdict(
    store, add, driver, monkeypatch
):
    await add_old(store, add)
    await add(count=1)  # waits while the times are read, and no more when that is checked
    await next_number(driver, LEAST_NUMBERS + 1)
    await add(count=1)
    waits = expiry._has_expired

    async def judged_meanwhile(*given):
        with monkeypatch.context() as patched:
            patched.setattr(expiry, "_WAITS", "SELECT $1::int8 > $2::int8")
            patched.setattr(expiry, "_NEWEST", "SELECT NULL::float8 WHERE $1::int8 > $2::int8")
            expired = await waits(*given)
        await judge_all(store)
        return expired

    monkeypatch.setattr(expiry, "_has_expired", judged_meanwhile)
    before = await counts(store)
    assert (await remove_old(store, payloads_days=0, verdicts_days=390, events_days=0))["verdicts"] == 0
    assert (await counts(store))[:2] == before[:2]


async def test_a_run_ends_what_a_killed_one_began(store, add, driver, monkeypatch):
    old = await add_old(store, add)
    await next_number(driver, LEAST_NUMBERS + 1)
    await add_old(store, add, count=1, days=1)

    async def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(expiry, "_drop_verdicts", killed)
        with pytest.raises(KeyboardInterrupt):
            await remove_old(store, **AGES)
    assert await driver.fetchval("SELECT count(*) FROM pg_class WHERE relname LIKE 'expired%' AND relkind = 'r'") > 0
    assert (await add(count=1)) != old
    assert (await remove_old(store, **AGES))["verdicts"] == 4
    async with store.reading() as connection:
        assert sum((await fleet_summary(connection, alive_since_s=0.0)).decisions.values()) == 1
    assert await driver.fetchval("SELECT count(*) FROM sample_keys") == 2
    assert not await driver.fetch("SELECT FROM pg_class WHERE relname LIKE 'expired%'")


async def test_a_reader_delays_the_drop_and_no_writer_for_long(store, add, driver, monkeypatch):
    monkeypatch.setattr(expiry, "ATTEMPTS", 2)
    await add_old(store, add)
    await next_number(driver, LEAST_NUMBERS + 1)
    await add_old(store, add, count=1, days=1)
    async with store.reading() as connection:
        await connection.execute(select(func.count()).select_from(samples))
        dropping, longest_s = asyncio.create_task(store.drop_expired({"verdicts": time.time() - 365 * 86_400})), 0.0
        while not dropping.done():
            started_s = time.monotonic()
            await add()
            longest_s = max(longest_s, time.monotonic() - started_s)
        assert (await connection.execute(select(func.count()).select_from(samples))).scalar_one() == 5
    assert "verdicts" not in await dropping
    assert longest_s < 1.0  # without a limit the writer would wait for the reader
    assert (await store.drop_expired({"verdicts": time.time() - 365 * 86_400}))["verdicts"] == 4


async def test_the_queue_passes_partitions_without_a_waiting_sample(store, add, driver):
    await add(count=1)
    await next_number(driver, LEAST_NUMBERS + 1)
    await add(count=2)
    await store.make_room()
    assert await driver.fetchval("SELECT number FROM waiting_from") == 1
    assert len(await waiting_samples(store, 10)) == 3  # also the one in the lower partition
    await judge_all(store)
    third = await add(count=1)
    await store.make_room()
    assert await driver.fetchval("SELECT number FROM waiting_from") == LEAST_NUMBERS + 1
    assert [item.sample_id.bytes for item in await waiting_samples(store, 10)] == third
    await unpack_next(store, 10)
    assert (await backlog(store)).total == 1


async def test_lookups_by_id_read_one_partition(store, add, driver):
    (sample_id,) = await add()
    await next_number(driver, 5 * LEAST_NUMBERS)
    await add()
    async with store.reading() as connection:
        assert await is_waiting(connection, uuid.UUID(bytes=sample_id))
    number = "(SELECT number FROM sample_keys WHERE sample_id = $1)"
    query = f"SELECT FROM samples JOIN payloads USING (number) WHERE samples.number = {number}"
    statement = await driver.prepare(f"EXPLAIN (ANALYZE, FORMAT TEXT) {query}")
    plan = [row[0] for row in await statement.fetch(sample_id)]
    read = [line for line in plan if "payloads_" in line and "never executed" not in line]
    assert len(read) == 1, plan


async def test_a_store_is_copied_with_its_numbers_and_ids(store, add, driver, postgres_server, tmp_path):
    await next_number(driver, 5 * LEAST_NUMBERS)
    ids = await add(count=2)
    await judge_all(store)
    name = f"copy_{uuid.uuid4().hex}"
    postgres_server.make(name, TEMPLATE)
    async with (
        open_store(StoreLocation(tmp_path, postgres_server.url(name))) as copy,
        store.reading() as source,
        copy.writing() as target,
    ):
        await copy_rows(source, target)
    async with open_store(StoreLocation(tmp_path, postgres_server.url(name))) as copy:
        async with copy.reading() as connection:
            assert (await judged_sample(connection, uuid.UUID(bytes=ids[1]))) is not None
        assert await counts(copy) == await counts(store)
    postgres_server.drop(name)


def test_a_store_with_rows_is_migrated_there_and_back(location, postgres_server):
    async def work() -> None:
        engine = new_engine(location.url)
        async with engine.begin() as connection:
            await connection.run_sync(to_revision, "0025")
        driver = await connect(location.url)
        await driver.execute(OLD_ROWS)
        before = [await driver.fetch(f"SELECT * FROM {name} ORDER BY 1") for name in NAMES]
        async with engine.begin() as connection:
            assert await connection.run_sync(upgrade) == ("0025", newest_revision())
        await check_upgraded(location, driver)
        async with engine.begin() as connection:
            await connection.run_sync(to_revision, "0025")
        assert [await driver.fetch(f"SELECT * FROM {name} ORDER BY 1") for name in NAMES] == before
        await driver.execute("DELETE FROM samples WHERE number = 1500000")  # its foreign keys are back
        assert [await driver.fetchval(f"SELECT count(*) FROM {name}") for name in NAMES] == [2, 2, 1, 0, 0, 1, 2]
        assert await driver.fetchval("SELECT nextval('samples_number_seq')") == 1_500_001
        await driver.close()
        await engine.dispose()

    asyncio.run(work())


NAMES = ("samples", "payloads", "verdicts", "anomaly_maps", "labels", "devices", "verdict_counts")
OLD_ROWS = """
INSERT INTO devices (device_id, enrolled_at_s, certificate_serial, certificate_expires_at_s) VALUES ('one', 0, '1', 9);
INSERT INTO samples (number, sample_id, device_id, source_id, modality, origin, captured_at_s, received_at_s, route,
  edge_p_value, edge_extrapolated, edge_bundle_id, calibration_id, artefact, payload_bytes, judged)
SELECT n, decode(lpad(n::text, 32, '0'), 'hex'), 'one', 'lab', 'tabular', 'row', 0, 0, 'forward', 0.5, false, 'b', 'c',
  'a', 3, n <> 7 FROM unnest(ARRAY[1, 7, 1500000]) AS n;
INSERT INTO payloads (number, encoding, shape, data) SELECT number, 1, '[3]', 'abc' FROM samples;
INSERT INTO verdicts (number, device_id, source_id, modality, judged_at_s, decision, p_value, extrapolated, bundle_id,
  reason, opinions, contributions, route)
SELECT number, 'one', 'lab', 'tabular', 5, 'normal', 0.5, false, 'b', '', '[]', '[]', 'forward'
FROM samples WHERE judged;
INSERT INTO anomaly_maps (number, height, width, cells) VALUES (1500000, 1, 1, 'x');
INSERT INTO labels (sample_number, label, author, note, at_s, actor) VALUES (1500000, 'real', 'anna', '', 1, 'test');
SELECT setval('samples_number_seq', 1500000);
"""


def to_revision(connection: Connection, revision: str) -> None:
    configuration = alembic_configuration()
    configuration.attributes["connection"] = connection
    command.downgrade(configuration, revision)


async def check_upgraded(location: StoreLocation, driver) -> None:
    """Old rows are in the first partition, and are found, counted, judged and deleted as before."""
    assert await bounds(driver) == [(None, 1), (1, 2 * LEAST_NUMBERS + 1)]
    async with open_store(location) as store:
        assert await counts(store) == [3, 3, 2, 1]
        (waiting,) = await waiting_samples(store, 10)
        assert waiting.number == 7
        async with store.reading() as connection:
            found = await judged_sample(connection, uuid.UUID(int=int("1500000", 16)))
            assert found is not None
            assert (await connection.execute(select(labels.c.label))).scalar_one() == "real"
            assert (await connection.execute(select(verdict_counts.c.verdicts).limit(1))).scalar_one() == 2
    with pytest.raises(Exception, match="pk_sample_keys"):
        await driver.execute("INSERT INTO sample_keys SELECT sample_id, 9, 'one' FROM samples WHERE number = 7")
