"""Open pages share one reader: one snapshot a second at most, none without a change."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import event

from cloud.console import snapshots
from cloud.console.snapshots import Snapshots
from shared.errors import StorageError
from tests.cloud.console.filled_store import SHUTTLE, Fleet, open_store

PAGES = 20


@pytest.fixture
async def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    monkeypatch.setattr(snapshots, "POLL_S", 0.05)
    monkeypatch.setattr(snapshots, "FRESH_S", 0.04)
    store, registry = open_store(tmp_path)
    async with store:
        fleet = Fleet(store, registry)
        await fleet.enrol()
        yield fleet


def count_statements(fleet: Fleet) -> list[str]:
    statements: list[str] = []
    engine = fleet.store._reader.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    return statements


async def test_pages_are_told_of_a_change_once_and_nothing_is_read_without_one(fleet: Fleet) -> None:
    shared = Snapshots(fleet.store, 60.0)
    told, reads = [0] * PAGES, 0

    async def read() -> int:
        nonlocal reads
        reads += 1
        await asyncio.sleep(0.01)
        return reads

    def page(place: int):
        async def tick() -> None:
            told[place] += 1
            assert await shared.shared("list", read) == reads

        return tick

    ends = [shared.follow(page(place)) for place in range(PAGES)]
    await asyncio.sleep(0.3)
    assert (set(told), reads) == ({1}, 1)
    statements = count_statements(fleet)
    await asyncio.sleep(0.5)
    assert statements == []
    await fleet.send(SHUTTLE)
    await asyncio.sleep(0.5)
    assert set(told) <= {2, 3, 4}  # request, sample and verdict may fall into three polls
    assert reads == max(told)
    for end in ends:
        end()
    await asyncio.sleep(0.2)
    assert shared._task is not None
    assert shared._task.done()


async def test_a_failure_reaches_every_page_and_the_next_snapshot_ends_it(fleet: Fleet) -> None:
    shared = Snapshots(fleet.store, 60.0)
    seen: list[str] = []

    async def tick() -> None:
        try:
            seen.append(str((await shared.newest()).summary.devices))
        except StorageError:
            seen.append("failed")

    shared.follow(tick)
    async with fleet.store.writing() as connection:
        await connection.exec_driver_sql("ALTER TABLE heartbeats RENAME TO hidden")
    await asyncio.sleep(0.3)
    async with fleet.store.writing() as connection:
        await connection.exec_driver_sql("ALTER TABLE hidden RENAME TO heartbeats")
    await asyncio.sleep(0.3)
    await shared.close()
    assert seen[0] == "failed"
    assert seen[-1] == "5"
    assert len(seen) == 2


async def test_a_read_that_fails_is_not_shared_with_later_pages(fleet: Fleet) -> None:
    shared = Snapshots(fleet.store, 60.0)
    attempts = iter([StorageError("disk"), None])

    async def read() -> str:
        if (error := next(attempts)) is not None:
            raise error
        return "rows"

    with pytest.raises(StorageError):
        await shared.shared("list", read)
    assert await shared.shared("list", read) == "rows"
