"""Tests of the store's size on disk: retention returns space, older files are converted, failures lose nothing."""

import asyncio
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import namedtuple
from contextlib import closing
from pathlib import Path

from sqlalchemy import func, select, update

from cloud.store import Store, open_store
from cloud.store.judging import store_verdicts, waiting_samples
from cloud.store.migrate import migrate, newest_revision
from cloud.store.retention import remove_old
from cloud.store.schema import payloads
from cloud.store.sqlite import checkpoints
from cloud.store.sqlite.space import INCREMENTAL, return_space
from cloud.store.sqlite.store import DATABASE_FILE, WAL_BYTES
from shared.samples import Decision, Verdict
from tests.cloud.store.backends import only_sqlite

KEEP = {"payloads_days": 30, "verdicts_days": 0, "events_days": 0}


def pragma(path: Path, name: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def contents(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def log_bytes(store: Store) -> int:
    return store.path.with_name(f"{DATABASE_FILE}-wal").stat().st_size


async def fill(store: Store, add, count: int = 40, size: int = 100_000) -> None:
    """Add samples with large payloads, judged 40 days ago."""
    await add(count=count)
    judged = [
        (
            waiting,
            Verdict(
                sample_id=waiting.sample_id,
                decision=Decision.NORMAL,
                p_value=0.5,
                extrapolated=False,
                opinions=(),
                bundle_id="biopsy-1-00000000",
                judged_at_s=time.time() - 40 * 86_400,
            ),
        )
        for waiting in await waiting_samples(store, count)
    ]
    await store_verdicts(store, judged)
    async with store.writing() as connection:
        await connection.execute(update(payloads).values(data=bytes(size)))


def older_file(folder: Path, size: int = 2_000_000) -> Path:
    """Make a store as earlier versions made it, without auto_vacuum, with free pages in it."""
    path = folder / DATABASE_FILE
    migrate(folder)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum = NONE")
        connection.execute("VACUUM")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE kept (data BLOB)")
        connection.execute("CREATE TABLE gone (data BLOB)")
        connection.execute("INSERT INTO kept VALUES (randomblob(?))", (size,))
        connection.execute("INSERT INTO gone VALUES (randomblob(?))", (size,))
        connection.execute("DELETE FROM gone")
    assert pragma(path, "auto_vacuum") == 0
    return path


@only_sqlite
async def test_the_file_shrinks_after_retention_and_its_log_is_copied(store, add):
    await fill(store, add)
    await store.restart_log()
    filled = store.path.stat().st_size
    assert filled > 4_000_000
    assert (await remove_old(store, **KEEP))["payloads"] == 40
    assert store.path.stat().st_size < filled / 5
    assert log_bytes(store) <= WAL_BYTES
    assert pragma(store.path, "freelist_count") == 0
    with closing(sqlite3.connect(store.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@only_sqlite
async def test_one_step_returns_only_the_pages_asked_for(store, add):
    await fill(store, add)
    async with store.writing() as connection:
        await connection.execute(update(payloads).values(data=b""))
    free = pragma(store.path, "freelist_count")
    await store.give_back(100)
    assert pragma(store.path, "freelist_count") == free - 100


@only_sqlite
async def test_a_reader_delays_only_the_new_start_of_the_log(store, add):
    await fill(store, add)
    async with store.reading() as connection:
        await connection.execute(select(func.count()).select_from(payloads))
        started_s = time.monotonic()
        await remove_old(store, **KEEP)
        assert time.monotonic() - started_s < 5  # busy_timeout is 10 s
        assert log_bytes(store) > 0
        # The earlier view still holds.
        assert (await connection.execute(select(func.count()).select_from(payloads))).scalar_one() == 40
    before = log_bytes(store)
    assert await store.restart_log()
    await add()
    assert log_bytes(store) <= before  # it starts again at its beginning


@only_sqlite
async def test_a_large_transaction_does_not_leave_a_large_log(store, add, monkeypatch):
    await fill(store, add, count=100, size=200_000)
    assert log_bytes(store) > WAL_BYTES
    monkeypatch.setattr(checkpoints, "EVERY_S", 0.01)
    async with asyncio.timeout(10):
        while log_bytes(store) > WAL_BYTES:  # writers go on meanwhile
            await add()


@only_sqlite
async def test_the_log_stays_small_under_writers_that_never_pause(store, add, monkeypatch):
    monkeypatch.setattr(checkpoints, "EVERY_S", 0.01)
    until_s = time.monotonic() + 1.0
    while time.monotonic() < until_s:
        async with store.writing() as connection:
            await connection.exec_driver_sql("UPDATE devices SET site = hex(randomblob(200000))")
    assert log_bytes(store) < 4 * WAL_BYTES


def test_an_older_file_is_converted_and_keeps_its_rows(tmp_path):
    path = older_file(tmp_path)
    before, size = contents(path), path.stat().st_size
    assert migrate(tmp_path) == (newest_revision(), newest_revision())
    assert pragma(path, "auto_vacuum") == INCREMENTAL
    assert path.stat().st_size < 0.7 * size
    assert contents(path) == before


def test_an_older_file_is_left_alone_without_room(tmp_path, monkeypatch, caplog):
    path = older_file(tmp_path)
    before = contents(path)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, path.stat().st_size))
    with caplog.at_level("WARNING", logger="vedette"):
        migrate(tmp_path)
    assert "store_not_compacted" in caplog.text
    assert pragma(path, "auto_vacuum") == 0
    assert contents(path) == before


def test_an_older_file_in_use_is_left_alone(tmp_path):
    path = older_file(tmp_path)
    with closing(sqlite3.connect(path)) as other:
        other.execute("SELECT count(*) FROM kept").fetchone()
        migrate(tmp_path)
        assert pragma(path, "auto_vacuum") == 0
    migrate(tmp_path)
    assert pragma(path, "auto_vacuum") == INCREMENTAL


def test_a_disk_that_fills_up_during_the_conversion_loses_nothing(tmp_path):
    path = older_file(tmp_path)
    before = contents(path)
    limit = 1_000_000  # less than the copy that VACUUM writes
    script = "import sys; from pathlib import Path; from cloud.store.migrate import migrate; migrate(Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "store_not_compacted" in done.stderr
    assert pragma(path, "auto_vacuum") == 0
    assert contents(path) == before
    migrate(tmp_path)  # with room
    assert pragma(path, "auto_vacuum") == INCREMENTAL
    assert contents(path) == before


@only_sqlite
async def test_retention_works_on_a_file_that_cannot_shrink(store, add):
    await fill(store, add, count=5)
    await store.close()
    with closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum = NONE")
        connection.execute("VACUUM")
    async with open_store(store.path.parent) as again:
        assert (await remove_old(again, **KEEP))["payloads"] == 5
        assert await return_space(again) == 0
