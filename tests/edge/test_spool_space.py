"""The file of the spool gives free pages back to the disk, in small steps."""

import sqlite3
from pathlib import Path

import pytest

from edge.spool_store import Settled, SpoolStore
from tests.edge.test_spool import sample


def emptied(store: SpoolStore) -> None:
    """Deliver all samples as the uplink does, in batches."""
    while batch := store.take(16, 10**9, ()):
        store.commit([], [Settled(item) for item in batch], (), {})
    for _ in range(20):
        store.commit([], [], (), {})


@pytest.mark.parametrize("older", [False, True])
def test_the_file_shrinks_after_the_spool_was_drained(tmp_path: Path, older: bool) -> None:
    path = tmp_path / "spool.db"
    SpoolStore(path, 10**9, 3600).close()
    if older:
        with sqlite3.connect(path, isolation_level=None) as connection:
            connection.execute("PRAGMA auto_vacuum = NONE")
            connection.execute("VACUUM")
        connection.close()
    store = SpoolStore(path, 10**9, 3600)
    for _ in range(10):
        store.commit([sample(0.01, 100_000) for _ in range(30)], [], (), {})
    kept = sample(0.5, 1000)
    filled = path.stat().st_size
    emptied(store)
    store.commit([kept], [], (), {})
    store.close()
    assert filled > 20_000_000
    assert path.stat().st_size < 8_000_000
    again = SpoolStore(path, 10**9, 3600)
    assert [item.data for item in again.take(10, 10**9, ())] == [kept.data]
    again.close()


def test_the_slack_for_the_next_samples_stays_in_the_file(tmp_path: Path) -> None:
    store = SpoolStore(tmp_path / "spool.db", 10**9, 3600)
    store.commit([sample(0.01, 100_000) for _ in range(20)], [], (), {})
    emptied(store)
    assert store._writer.execute("PRAGMA freelist_count").fetchone()[0] > 400
    store.close()


def test_a_large_older_spool_is_not_rewritten_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "spool.db"
    monkeypatch.setattr("edge.spool_store._MAX_REWRITTEN_BYTES", 0)
    store = SpoolStore(path, 10**9, 3600)
    store.commit([sample(0.01) for _ in range(3)], [], (), {})
    emptied(store)
    assert store._writer.execute("PRAGMA auto_vacuum").fetchone()[0] == 0
    assert store.samples == 0
    store.close()
