"""Tables, migrations, and durability of the SQLite store."""

import asyncio
import math
import re
import sqlite3
import time

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, func, select, update

from cloud.store import Store, open_store
from cloud.store.contents import load_payloads
from cloud.store.events import events_after, newest_cursor
from cloud.store.judging import backlog, store_verdicts, waiting_samples
from cloud.store.migrate import migrate, newest_revision
from cloud.store.retention import remove_old
from cloud.store.schema import events, metadata, payloads, samples, verdicts
from shared.errors import StorageError
from shared.samples import Decision, Opinion, Verdict
from shared.wire import decode_payload
from tests.cloud.store.backends import only_sqlite
from tests.cloud.stored_samples import count_stored
from vedette.v1 import sample_pb2


def verdict(waiting, **changes) -> Verdict:
    values = {
        "sample_id": waiting.sample_id,
        "decision": Decision.ANOMALOUS,
        "p_value": 0.001,
        "extrapolated": True,
        "opinions": (Opinion("knn", 2.5, 0.001, True), Opinion("score_norm", math.nan, 1.0, False)),
        "bundle_id": "biopsy-1-00000000",
        "judged_at_s": time.time(),
        "anomaly_map": np.arange(12, dtype=np.uint8).reshape(3, 4),
        "contributions": (("radius", 0.75), ("texture", 0.25)),
    }
    return Verdict(**(values | changes))


async def judge_all(store, **changes) -> list[Verdict]:
    judged = [(waiting, verdict(waiting, **changes)) for waiting in await waiting_samples(store, 1000)]
    await store_verdicts(store, judged)
    return [made for _, made in judged]


@pytest.mark.filterwarnings("ignore:.*expression-based index")  # compared by their statements
def test_the_migrations_lead_to_exactly_the_tables_of_the_schema(tmp_path):
    assert migrate(tmp_path) == (None, newest_revision())
    assert migrate(tmp_path) == (newest_revision(), newest_revision())
    migrated = create_engine(f"sqlite:///{tmp_path / 'vedette.sqlite'}")
    with migrated.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    direct = create_engine(f"sqlite:///{tmp_path / 'direct.sqlite'}")
    metadata.create_all(direct)
    assert statements(migrated) == statements(direct)


def statements(engine: Engine) -> list[list[str]]:
    """Statements that make tables and indices; the order of a table's constraints does not matter."""
    query = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND tbl_name != 'alembic_version' ORDER BY name"
    with engine.connect() as connection:
        found = connection.exec_driver_sql(query).scalars().all()
    return [sorted(line.strip(" \t,") for line in re.split(r"\n|, (?=\w+ [A-Z])", sql)) for sql in found]


def test_a_store_of_a_newer_version_and_a_file_that_is_none_are_clear_errors(tmp_path):
    migrate(tmp_path)
    with sqlite3.connect(tmp_path / "vedette.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StorageError, match="Update Vedette"):
        migrate(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "vedette.sqlite").write_bytes(b"no database, but long enough to look like one" * 100)
    with pytest.raises(StorageError, match="not a database"):
        migrate(tmp_path / "other")


async def test_a_store_without_tables_names_the_command_to_run(tmp_path):
    async with open_store(tmp_path) as store:
        with pytest.raises(StorageError, match="vedette cloud migrate"):
            await newest_cursor(store)


@only_sqlite
async def test_committed_rows_survive_a_power_cut(store):
    for context in (store.writing, store.reading):
        async with context() as connection:
            settings = [
                (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
        assert settings == ["wal", 2, 1]


async def test_a_transaction_that_fails_or_is_cancelled_leaves_nothing(store, add):
    await add()

    async def change(then) -> None:
        async with store.writing() as connection:
            await connection.execute(update(samples).values(origin="changed"))
            await then()

    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await change(fail)
    task = asyncio.create_task(change(lambda: asyncio.sleep(60)))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with store.reading() as connection:
        assert (await connection.execute(select(samples.c.origin))).scalars().all() == ["row 0"]
    await asyncio.wait_for(add(), 5)  # the lock is free again


async def test_readers_see_one_state_while_the_writer_works(store, add):
    await add()
    async with store.reading() as connection:
        before = (await connection.execute(select(func.count()).select_from(samples))).scalar_one()
        await add(count=3)
        assert (await connection.execute(select(func.count()).select_from(samples))).scalar_one() == before


async def test_two_processes_may_write_at_the_same_time(store, add, location):
    async with open_store(location) as other:

        async def write(target: Store) -> None:
            for _ in range(20):
                async with target.writing() as connection:
                    await connection.execute(update(samples).values(origin="x"))

        await add()
        await asyncio.gather(write(store), write(other))


async def test_the_payload_that_waits_is_the_one_that_came(store, add):
    await add(score=math.nan)
    (waiting,) = await waiting_samples(store, 10)
    payload = (await load_payloads(store, [waiting.number]))[waiting.number]
    assert np.array_equal(decode_payload(payload, waiting.modality), np.arange(3))
    async with store.reading() as connection:
        row = (await connection.execute(select(samples.c.edge_score, payloads.c.edge_map).join(payloads))).one()
    assert row == (None, bytes(range(6)))


async def test_a_flood_of_one_device_does_not_delay_another(store, add):
    await add("one", 50)
    await add("two", 2)
    first = await waiting_samples(store, 6)
    assert [waiting.device_id for waiting in first].count("two") == 2
    numbers = [waiting.number for waiting in first if waiting.device_id == "one"]
    assert numbers == sorted(numbers)
    assert (await backlog(store)).by_device == {"one": 50, "two": 2}


async def test_large_images_of_one_device_come_one_at_a_time(store, add):
    """A file of 200 kB may hold an image of 200 MB, which takes as long to judge as thousands of rows."""
    await add("one", 5)
    large = {"encoding": sample_pb2.PAYLOAD_ENCODING_PNG, "shape": [8192, 8192, 3]}
    async with store.writing() as connection:
        await connection.execute(update(payloads).values(**large))
    await add("two", 20)
    first = await waiting_samples(store, 16)
    assert [waiting.device_id for waiting in first] == ["one"] + ["two"] * 8
    assert first[0].decoded_bytes == 8192 * 8192 * 3
    assert first[1].decoded_bytes == 3 * 4


async def test_every_device_has_its_turn_where_more_wait_than_are_taken(store, add):
    for device_id in ("one", "two"):
        await add(device_id, 3)
    assert [waiting.device_id for waiting in await waiting_samples(store, 1)] == ["one"]
    assert [waiting.device_id for waiting in await waiting_samples(store, 3)] == ["one", "two", "one"]
    assert len(await waiting_samples(store, 100)) == 6


async def test_a_judged_sample_waits_no_more_and_its_verdict_comes_back_as_it_was(store, add):
    await add("one", 2)
    await add("two", 1)
    made = await judge_all(store)
    assert await waiting_samples(store, 10) == []
    assert (await backlog(store)).total == 0
    found = [event.content for event in await events_after(store, "one", 0, 10)]
    assert [item.sample_id for item in found] == sorted(item.sample_id for item in made[:3] if item in made)[:2]
    expected = next(item for item in made if item.sample_id == found[0].sample_id)
    assert np.array_equal(found[0].anomaly_map, expected.anomaly_map)
    assert found[0].contributions == expected.contributions
    assert found[0].opinions[0] == expected.opinions[0]
    assert math.isnan(found[0].opinions[1].score)


async def test_verdicts_are_all_written_or_none(store, add):
    await add("one", 2)
    first, second = await waiting_samples(store, 10)
    with pytest.raises(StorageError):
        await store_verdicts(store, [(first, verdict(first)), (second, verdict(second)), (first, verdict(first))])
    assert len(await waiting_samples(store, 10)) == 2
    assert await events_after(store, "one", 0, 10) == []


async def test_events_are_paged_without_gap_or_double(store, add):
    for device_id in ("one", "two", "one", "one"):
        await add(device_id, 5)
        await judge_all(store)
    whole = [event.cursor for event in await events_after(store, "one", 0, 100)]
    paged: list[int] = []
    while page := await events_after(store, "one", paged[-1] if paged else 0, 4):
        paged += [event.cursor for event in page]
    assert paged == whole
    assert len(whole) == 15


async def test_a_verdict_gets_the_time_of_its_transaction(store, add):
    await add("one", 1)
    (waiting,) = await waiting_samples(store, 1)
    before_s = time.time()
    (written,) = await store_verdicts(store, [(waiting, verdict(waiting, judged_at_s=0.0))])
    (stored,) = await events_after(store, "one", 0, 2)
    assert before_s <= stored.content.judged_at_s <= time.time()
    assert written.event.content.judged_at_s == stored.content.judged_at_s


async def test_old_rows_are_deleted_but_never_pending_ones(store, add):
    ids = await add(count=3)
    await judge_all(store, judged_at_s=time.time() - 40 * 86_400)
    waiting_ids = await add(count=2)
    async with store.writing() as connection:
        await connection.execute(update(samples).values(received_at_s=0.0))
    newest = await newest_cursor(store)
    removed = await remove_old(store, payloads_days=30, verdicts_days=365, events_days=0)
    assert removed == {"events": 0, "notices": 0, "payloads": 3, "verdicts": 0}
    removed = await remove_old(store, payloads_days=0, verdicts_days=30, events_days=30)
    assert removed == {"events": 3, "notices": 0, "payloads": 0, "verdicts": 3}
    assert (await count_stored(store, ids), await count_stored(store, waiting_ids)) == (0, 2)
    async with store.reading() as connection:
        for table in (verdicts, events):
            assert (await connection.execute(select(func.count()).select_from(table))).scalar_one() == 0
    await judge_all(store)
    assert await newest_cursor(store) > newest  # a cursor is never used twice


async def test_nothing_is_removed_where_everything_is_kept(store, add):
    await add()
    await judge_all(store, judged_at_s=1.0)
    assert set((await remove_old(store, payloads_days=0, verdicts_days=0, events_days=0)).values()) == {0}


@only_sqlite
@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("SELECT device_id, count(*) FROM samples WHERE judged = 0 GROUP BY device_id", "ix_samples_waiting"),
        (
            "SELECT 1 FROM events WHERE device_id = 'x' AND cursor > 5 ORDER BY cursor LIMIT 9",
            "ix_events_device_id_cursor",
        ),
    ],
)
async def test_frequent_queries_use_their_index_and_sort_nothing(store, query, index):
    async with store.reading() as connection:
        plan = str((await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")).all())
    assert index in plan
    assert "TEMP B-TREE" not in plan
