"""Tests of the spool: samples stay until settled, and only the least suspicious are dropped and counted."""

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.counters import Counters
from edge.settings import SpoolSettings
from edge.spool import GROUP_TIME_PER_COMMIT, MAX_GROUP_S, Spool
from edge.spool_store import NewSample, Settled, SpooledSample, SpoolStore
from shared.errors import StorageError
from shared.samples import new_sample_id


def sample(p_value: float, size: int = 100) -> NewSample:
    return NewSample(new_sample_id().bytes, p_value, bytes(size))


def until(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.005)


@pytest.fixture
def spool_at(tmp_path: Path):
    opened: list[Spool] = []

    def open_spool(**settings: object) -> tuple[Spool, Counters]:
        counters = Counters()
        spool = Spool(tmp_path / "spool.db", SpoolSettings(**settings), counters)  # type: ignore[arg-type]
        opened.append(spool)
        return spool, counters

    yield open_spool
    for spool in opened:
        spool.close()


def put(spool: Spool, samples: list[NewSample], **counts: int) -> None:
    done = threading.Event()
    spool.append(samples, counts, [done.set])
    assert done.wait(5)


def test_samples_are_taken_once_in_order_of_suspicion(spool_at) -> None:
    spool, _ = spool_at()
    p_values = [0.5, 0.001, 0.04, 0.2, 0.003]
    samples = {p: sample(p) for p in p_values}
    put(spool, list(samples.values()))
    first, second = spool.take(2, 10_000), spool.take(10, 10_000)
    taken = [item.sample_id for item in (*first, *second)]
    assert taken == [samples[p].sample_id for p in sorted(p_values)]
    assert spool.take(10, 10_000) == []
    spool.release([item.seq for item in second])
    assert [item.sample_id for item in spool.take(10, 10_000)] == taken[2:]


def test_a_slow_disk_gets_more_samples_per_transaction(spool_at, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, commits, commit_s = SpoolStore.commit, [], 0.02

    def slowly(*arguments):
        commits.append(len(arguments[1]))
        time.sleep(commit_s)
        return commit(*arguments)

    monkeypatch.setattr(SpoolStore, "commit", slowly)
    spool, _ = spool_at()
    started_s = time.monotonic()
    for _ in range(60):
        spool.append([sample(0.1)], {})
        time.sleep(0.005)
    elapsed_s = time.monotonic() - started_s
    until(lambda: sum(commits) == 60)
    # After a slow commit the spool groups samples for MAX_GROUP_S: 70 ms per transaction including the commit. With
    # MIN_GROUP_S, 25 ms per transaction, there would be nearly three times as many transactions.
    assert GROUP_TIME_PER_COMMIT * commit_s > MAX_GROUP_S
    assert len(commits) <= elapsed_s / (commit_s + MAX_GROUP_S) + 2


def test_a_batch_keeps_its_byte_limit_but_has_at_least_one_sample(spool_at) -> None:
    spool, _ = spool_at()
    put(spool, [sample(0.1, 1000) for _ in range(4)])
    assert len(spool.take(10, 2500)) == 2
    assert len(spool.take(10, 10)) == 1


def test_settled_samples_are_deleted_and_the_rest_survives_a_restart(spool_at) -> None:
    spool, counters = spool_at()
    put(spool, [sample(0.1 * n) for n in range(1, 6)], samples_forwarded=5)
    taken = spool.take(3, 10_000)
    spool.settle([Settled(taken[0]), Settled(taken[1], "too odd")], {})
    until(lambda: spool.status().samples == 3)
    spool.close()
    again, counters = spool_at()
    assert again.status().samples == 3
    counts = counters.snapshot()
    assert counts["samples_forwarded"] == counts["samples_spooled"] == 5
    assert counts["samples_acknowledged"] == counts["samples_refused"] == 1
    assert next(item.sample_id for item in again.take(10, 10_000)) == taken[2].sample_id


def test_a_full_spool_drops_the_least_suspicious_and_counts_them(spool_at) -> None:
    spool, counters = spool_at(max_bytes=1 << 16)
    keepers = [sample(0.001 * n, 1000) for n in range(1, 61)]
    put(spool, [sample(0.5, 1000) for _ in range(60)])
    put(spool, keepers)
    status = spool.status()
    assert status.bytes <= 1 << 16
    assert counters.snapshot()["samples_dropped"] == 120 - status.samples
    kept = {item.sample_id for item in spool.take(1000, 1 << 20)}
    assert {item.sample_id for item in keepers} <= kept


def test_samples_in_flight_are_not_dropped(spool_at) -> None:
    spool, _ = spool_at(max_bytes=1 << 16)
    put(spool, [sample(0.9, 1000) for _ in range(20)])
    flying = {item.sample_id for item in spool.take(10, 1 << 20)}
    put(spool, [sample(0.001, 1000) for _ in range(80)])
    spool.release([])
    rows = sqlite3.connect(spool._path).execute("SELECT sample_id FROM samples").fetchall()
    assert flying <= {row[0] for row in rows}


def test_old_samples_are_dropped_and_counted(spool_at) -> None:
    spool, counters = spool_at(max_age_s=0.2)
    put(spool, [sample(0.1)])
    time.sleep(0.3)
    put(spool, [sample(0.1)])
    assert spool.status().samples == 1
    assert counters.snapshot()["samples_dropped"] == 1


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 3000)), max_size=60), st.integers(1 << 10, 1 << 15))
def test_the_limit_holds_and_the_least_suspicious_samples_are_dropped(
    tmp_path_factory: pytest.TempPathFactory, arrivals: list[tuple[float, int]], max_bytes: int
) -> None:
    store = SpoolStore(tmp_path_factory.mktemp("spool") / "spool.db", max_bytes, 1e6)
    dropped = 0
    for p_value, size in arrivals:
        dropped += store.commit([sample(p_value, size)], [], set(), {}).full
        assert store.bytes <= max_bytes
    kept = store._reader.execute("SELECT priority, size_bytes FROM samples").fetchall()
    assert len(kept) + dropped == len(arrivals)
    assert (store.samples, store.bytes) == (len(kept), sum(size for _, size in kept))
    store.close()


def test_a_full_disk_is_reported_and_pending_samples_are_written_later(spool_at, tmp_path: Path) -> None:
    spool, counters = spool_at(max_pending_bytes=1 << 16)
    put(spool, [sample(0.5)])
    writer = spool._store._writer
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages}")  # a full disk for SQLite
    most = sample(1e-6, 1000)
    for _ in range(100):
        spool.append([sample(0.01, 2000)], {"samples_forwarded": 1})
    spool.append([most], {"samples_forwarded": 1})
    until(lambda: spool.status().error and spool.status().pending < 60)
    assert "full" in spool.status().error
    counts = counters.snapshot()
    assert counts["samples_dropped"] > 0
    writer.execute("PRAGMA max_page_count = 1000000")
    until(lambda: not spool.status().error and spool.status().pending == 0)
    counts = counters.snapshot()
    assert counts["samples_forwarded"] == 101
    assert counts["samples_dropped"] + spool.status().samples == 102
    assert spool.take(1, 10_000)[0].sample_id == most.sample_id


def test_a_file_damaged_while_running_is_set_aside(spool_at, tmp_path: Path) -> None:
    spool, counters = spool_at()
    put(spool, [sample(0.5, 3000) for _ in range(50)])
    spool._store._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path = tmp_path / "spool.db"
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    path.write_bytes(data)
    until(lambda: spool.take(10, 1 << 20) == [] and list(tmp_path.glob("spool.db.damaged-*")))
    until(lambda: counters.snapshot()["spools_set_aside"] == 1)
    fresh = sample(0.1)
    put(spool, [fresh])
    assert [item.sample_id for item in spool.take(10, 1 << 20)] == [fresh.sample_id]
    assert counters.snapshot()["samples_dropped"] == 50


@pytest.mark.parametrize("damage", [b"", b"not a database at all" * 300, None])
def test_a_file_damaged_at_start_is_set_aside(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "spool.db"
    store = SpoolStore(path, 1 << 20, 1e6)
    store.commit([sample(0.1, 5000) for _ in range(20)], [], set(), {"samples_spooled": 20})
    store.close()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    again = SpoolStore(path, 1 << 20, 1e6)
    assert (again.samples > 0) == (damage is None)  # the readable samples of half a file are recovered
    assert (again.set_aside is not None) == (damage != b"")  # an empty file is a new database
    again.commit([sample(0.1)], [], set(), {})
    again.close()


def test_a_folder_without_write_access_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made"):
        SpoolStore(tmp_path / "file" / "spool.db", 1 << 20, 1e6)


def test_sample_numbers_of_an_older_file_settle_nothing_in_a_new_one(tmp_path: Path) -> None:
    store = SpoolStore(tmp_path / "a.db", 1 << 20, 1e6)
    store.commit([sample(0.1)], [], set(), {})
    stale = store.take(1, 1000, set())[0]
    store.close()
    other = SpoolStore(tmp_path / "b.db", 1 << 20, 1e6)
    other.commit([sample(0.2)], [], set(), {})
    other.commit([], [Settled(stale)], set(), {})
    assert other.samples == 1
    other.close()


def test_a_failing_callback_does_not_end_the_writer_thread(spool_at) -> None:
    spool, _ = spool_at()

    def fail() -> None:
        raise UnicodeEncodeError("utf-8", "x", 0, 1, "invalid text in the screening log")

    spool.append([sample(0.1)], {}, [fail])
    until(lambda: spool.status().samples == 1)
    spool.append([sample(0.2)], {})
    until(lambda: spool.status().samples == 2)


def test_any_write_error_is_reported_and_retried(spool_at, monkeypatch: pytest.MonkeyPatch) -> None:
    spool, _ = spool_at()
    commit = spool._store.commit
    errors = [MemoryError("no room")]

    def failing(*arguments: object) -> object:
        if errors:
            raise errors.pop()
        return commit(*arguments)

    monkeypatch.setattr(spool._store, "commit", failing)
    spool.append([sample(0.1)], {"samples_screened": 1})
    until(lambda: spool.status().samples == 1 and not spool.status().error)
    assert not errors


@pytest.mark.parametrize(
    ("appended_samples", "max_errors"),  # during each commit: one, or more than fit into a transaction of full size
    [(1, 2), (2**19 // 100, 5)],
)
def test_the_error_state_ends_although_samples_arrive_during_each_commit(
    appended_samples: int, max_errors: int, spool_at, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, counters = spool_at(max_pending_bytes=2**18)
    commit, commits, max_commits = spool._store.commit, [], 30
    monkeypatch.setattr("edge.spool.RETRY_S", 0.02)

    def failing_twice(*arguments: object) -> object:
        commits.append(spool.status().error)
        if len(commits) <= 2:
            raise sqlite3.OperationalError("database or disk is full")
        gone = commit(*arguments)
        if commits[-1] and len(commits) < max_commits:  # in the error state, this append does not wait
            spool.append([sample(0.5, 100) for _ in range(appended_samples)], {})
        return gone

    monkeypatch.setattr(spool._store, "commit", failing_twice)
    spool.append([sample(0.1)], {"samples_screened": 1})
    until(lambda: len(commits) >= 3 and not spool.status().error and not spool.status().pending)
    errors = [bool(error) for error in commits]
    assert errors[:3] == [False, True, True]
    assert sum(errors) <= max_errors
    assert counters.snapshot()["samples_dropped"] == 0


def test_an_almost_full_disk_gets_the_most_suspicious_samples(spool_at, monkeypatch: pytest.MonkeyPatch) -> None:
    spool, counters = spool_at(max_pending_bytes=2**20)
    commit, room = spool._store.commit, [0]
    first: list[SpooledSample] = []
    monkeypatch.setattr("edge.spool.RETRY_S", 0.02)

    def small(new: list[NewSample], *arguments: object) -> object:
        if sum(len(item.data) for item in new) > room[0]:
            raise sqlite3.OperationalError("database or disk is full")
        return commit(new, *arguments)

    monkeypatch.setattr(spool._store, "commit", small)
    written: list[bool] = []
    samples = [sample((n + 1) / 100, 10_000) for n in range(40)]
    spool.append(samples[::-1], {"samples_screened": 40}, [lambda: written.append(True)])
    until(lambda: spool.status().error)
    room[0] = 2**16
    until(lambda: first.extend(spool.take(3, 10**6)) or first)
    assert [item.sample_id for item in first] == [item.sample_id for item in samples[:3]]
    room[0] = 10**9
    until(lambda: spool.status().samples == 40 and written)
    assert spool.status().error == ""
    assert len(written) == 1
    assert counters.snapshot()["samples_spooled"] == 40
    assert counters.snapshot()["samples_screened"] == 40
    assert counters.snapshot()["samples_dropped"] == 0


def test_a_batch_with_a_cursor_is_written_atomically(spool_at, monkeypatch: pytest.MonkeyPatch) -> None:
    spool, _ = spool_at(max_pending_bytes=2**16)
    commit, seen = SpoolStore.commit, []

    def slow(self: SpoolStore, new: Any, settled: Any, in_flight: Any, counts: Any, cursors: Any = None) -> Any:
        time.sleep(0.05)
        result = commit(self, new, settled, in_flight, counts, cursors)
        (stored,) = self._reader.execute("SELECT COUNT(*) FROM samples").fetchone()
        seen.append((stored, self.saved_counters()["samples_screened"], self.cursors().get("log", "0")))
        return result

    monkeypatch.setattr(SpoolStore, "commit", slow)
    for number in range(1, 6):
        batch = [sample(0.01 * index, 2000) for index in range(1, 21)]
        spool.append(batch, {"samples_screened": 20}, cursors={"log": str(20 * number)})
    until(lambda: spool.status().samples == 100)
    assert all(stored == counted == int(cursor) for stored, counted, cursor in seen)
    until(lambda: spool.cursor("log") == "100")


def test_a_batch_with_a_cursor_is_not_confirmed_before_it_is_written(spool_at, monkeypatch: pytest.MonkeyPatch) -> None:
    spool, counters = spool_at(max_pending_bytes=2**16)
    commit = SpoolStore.commit

    def refuse(*arguments: Any, **more: Any) -> Any:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(SpoolStore, "commit", refuse)
    kept: list[int] = []
    for number in range(2):
        spool.append(
            [sample(0.01, 2000)],
            {"samples_screened": 1},
            [lambda number=number: kept.append(number)],
            {"log": str(number)},
        )
    spool.append(
        [sample(0.5, 2**16) for _ in range(3)], {"samples_screened": 3}
    )  # without a cursor and beyond the limit
    until(lambda: counters.snapshot()["samples_dropped"])
    assert kept == []
    assert counters.snapshot()["samples_screened"] == 3
    monkeypatch.setattr(SpoolStore, "commit", commit)
    until(lambda: kept == [0, 1])
    assert counters.snapshot()["samples_screened"] == 5
    assert spool.cursor("log") == "1"


def test_cursors_survive_a_damaged_page_of_samples(spool_at, tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    spool, _ = spool_at()
    spool.append([sample(0.01 * index, 3000) for index in range(1, 99)], {}, cursors={"log": "here"})
    until(lambda: spool.cursor("log"))
    spool.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page = connection.execute("PRAGMA page_size").fetchone()[0]
    data = bytearray(path.read_bytes())
    for start in range(20 * page, 40 * page, page):
        data[start : start + page] = b"\xff" * page
    path.write_bytes(data)
    again, counters = spool_at()
    assert counters.snapshot()["spools_set_aside"] == 1
    assert again.cursor("log") == "here"


def test_a_spool_file_of_the_first_version_can_be_used(tmp_path: Path) -> None:
    store = SpoolStore(tmp_path / "spool.db", 10**6, 3600)
    store.commit([sample(0.03), sample(0.01)], [], set(), {})
    store.close()
    with sqlite3.connect(tmp_path / "spool.db") as connection:
        connection.execute("ALTER TABLE samples RENAME COLUMN priority TO p_value")
    store = SpoolStore(tmp_path / "spool.db", 10**6, 3600)
    assert store.set_aside is None
    store.commit([sample(0.02)], [], set(), {})
    assert len(store.take(10, 10**6, set())) == 3
    store.close()
