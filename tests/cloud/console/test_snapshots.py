"""Open pages share one reader: a read that fails is not kept."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cloud.console import snapshots
from cloud.console.snapshots import Snapshots
from shared.errors import StorageError
from tests.cloud.console.filled_store import Fleet, open_store


@pytest.fixture
async def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    monkeypatch.setattr(snapshots, "FRESH_S", 0.04)
    store, registry = open_store(tmp_path)
    async with store:
        fleet = Fleet(store, registry)
        await fleet.enrol()
        yield fleet


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
