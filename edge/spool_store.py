"""The spool's file: samples in the order of their priority, bounded in bytes and age."""

import contextlib
import functools
import json
import shutil
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edge.clock import SteadyClock
from edge.disk import disk_error_text
from edge.sqlite_file import connect, open_checked
from shared.errors import StorageError
from shared.logs import EventLog
from shared.pacing import Pace

_SCHEMA = """
CREATE TABLE IF NOT EXISTS samples (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, sample_id BLOB NOT NULL, priority REAL NOT NULL, spooled_at_s REAL NOT NULL,
  size_bytes INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS by_priority ON samples (priority, seq, size_bytes);
CREATE INDEX IF NOT EXISTS by_id ON samples (sample_id);
CREATE TABLE IF NOT EXISTS refused (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, sample_id BLOB NOT NULL, reason TEXT NOT NULL, refused_at_s REAL NOT NULL,
  data BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS cursors (source_id TEXT PRIMARY KEY, position TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counters (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), value TEXT NOT NULL);
"""
MAX_REFUSED = 1000
# Many rows in one statement: each step releases Python's lock, for which screening threads compete.
_ROWS_PER_STATEMENT = 256
_CHUNK_BYTES = 4 * 2**20  # copied from a damaged file in one transaction
# Pages are returned to the disk beyond this slack, which the next samples fill.
_SLACK_BYTES, _SLACK_SHARE = 4 * 2**20, 0.25
_STEP_S, _FIRST_PAGES, _MOST_PAGES = 0.02, 64, 4096
_INCREMENTAL = 2  # value of PRAGMA auto_vacuum
_MAX_REWRITTEN_BYTES = 64 * 2**20  # rewriting more would delay the start

log = EventLog("spool")


class NewSample(NamedTuple):
    """Sample for the spool, with its serialised message `data`.

    A sample with a lower `priority` is sent earlier and dropped later; see `Routing`.
    """

    sample_id: bytes
    priority: float
    data: bytes


@dataclass(frozen=True, slots=True)
class SpooledSample:
    """Sample in the spool; `seq` is its row number."""

    seq: int
    sample_id: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Settled:
    """Sample that was acknowledged, or, with a `refusal`, one that the service will never accept."""

    sample: SpooledSample
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Departures:
    """Numbers of samples that left the spool in a commit.

    They were delivered, refused, or dropped because the spool was full or they were too old.
    """

    acknowledged: int = 0
    refused: int = 0
    full: int = 0
    expired: int = 0

    def counts(self) -> dict[str, int]:
        """Return the numbers by the names of the counters."""
        return {
            "samples_acknowledged": self.acknowledged,
            "samples_refused": self.refused,
            "samples_dropped": self.full + self.expired,
        }


class SpoolStore:
    """The spool's file, with one connection to write and one to read, each for one thread at a time."""

    def __init__(self, path: Path, max_bytes: int, max_age_s: float, settled: Collection[bytes] = ()) -> None:
        """Open or create the file. `set_aside` is the new path of a damaged one, whose readable samples were copied.

        `settled`: ids of samples that are not copied from a damaged file. Raises StorageError if the file can neither
        be opened nor created.
        """
        self._path, self._max_bytes, self._max_age_s = path, max_bytes, max_age_s
        self.counted_before = 0  # samples here that were counted as gone before a damage
        self._writer, self.set_aside = open_checked(path, _SCHEMA, synchronous="FULL")
        _rename_priority(self._writer)
        _make_shrinkable(self._writer, path)
        self._pace = Pace(_STEP_S, _FIRST_PAGES, _MOST_PAGES)
        self._reader = connect(path, "FULL")
        row = self._writer.execute("SELECT COUNT(*), COALESCE(SUM(size_bytes), 0) FROM samples").fetchone()
        self.samples, self.bytes = int(row[0]), int(row[1])
        newest = self._writer.execute("SELECT spooled_at_s FROM samples ORDER BY seq DESC LIMIT 1").fetchone()
        self._clock = SteadyClock(*newest or ())
        if self.set_aside is not None:
            self._salvage(self.set_aside, frozenset(settled))

    def saved_counters(self) -> dict[str, int]:
        """Return the counts as of the last commit."""
        row = self._writer.execute("SELECT value FROM counters").fetchone()
        return dict(json.loads(row[0])) if row else {}

    def cursors(self) -> dict[str, str]:
        """Return the position of each source as of the last commit."""
        return dict(self._writer.execute("SELECT source_id, position FROM cursors").fetchall())

    def commit(
        self,
        new: Iterable[NewSample],
        settled: Sequence[Settled],
        in_flight: Collection[int],
        counters: Mapping[str, int],
        cursors: Mapping[str, str] | None = None,
    ) -> Departures:
        """Insert `new`, remove `settled`, keep the bounds, and save counts and cursors in one durable transaction.

        `in_flight`: row numbers of samples being sent, which stay. Raises sqlite3.Error without any change.
        """
        now_s = self._clock.now_s()
        rows = [(sample.sample_id, sample.priority, now_s, len(sample.data), sample.data) for sample in new]
        before = self.samples, self.bytes
        connection = self._writer
        try:
            connection.execute("BEGIN IMMEDIATE")
            acknowledged, refused = self._delete_settled(connection, settled, now_s)
            _insert(connection, rows)
            self.samples += len(rows)
            self.bytes += sum(row[3] for row in rows)
            expired = self._drop_old(connection, now_s, in_flight)
            full = self._drop_least_suspicious(connection, in_flight)
            again = min(acknowledged, self.counted_before)
            gone = Departures(acknowledged - again, refused, full, expired)
            counts = {**counters, **{name: counters.get(name, 0) + count for name, count in gone.counts().items()}}
            connection.execute("INSERT OR REPLACE INTO counters VALUES (1, ?)", (json.dumps(counts),))
            connection.executemany("INSERT OR REPLACE INTO cursors VALUES (?, ?)", (cursors or {}).items())
            connection.execute("COMMIT")
        except BaseException:
            self.samples, self.bytes = before
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self.counted_before -= again
        self._give_back()
        return gone

    def take(self, max_samples: int, max_bytes: int, in_flight: Collection[int]) -> list[SpooledSample]:
        """Return the most suspicious samples not in flight, within both limits but at least one if there is any."""
        chosen: list[int] = []
        total = 0
        # The index alone answers this: passing over samples in flight does not read them.
        with closing(self._reader.execute("SELECT seq, size_bytes FROM samples ORDER BY priority, seq")) as rows:
            for seq, size in rows:
                if seq in in_flight:
                    continue
                total += size
                if chosen and total > max_bytes:
                    break
                chosen.append(seq)
                if len(chosen) == max_samples:
                    break
        samples = []
        for seq in chosen:
            row = self._reader.execute("SELECT sample_id, data FROM samples WHERE seq = ?", (seq,)).fetchone()
            if row is not None:  # dropped meanwhile to make room
                samples.append(SpooledSample(seq, row[0], row[1]))
        return samples

    def close(self) -> None:
        """Close both connections."""
        self._reader.close()
        self._writer.close()

    def _give_back(self) -> None:
        """Return some free pages to the disk; a disk that refuses changes nothing, and the next commit tries again."""
        try:
            if _excess_pages(self._writer):
                started_s = time.perf_counter()
                # Not execute(): Python's driver would stop after the first page.
                self._writer.executescript(f"PRAGMA incremental_vacuum({self._pace.size})")
                self._pace.measured(time.perf_counter() - started_s)
        except sqlite3.Error as error:
            log.debug("disk_not_given_back", path=self._path, error=error)

    def _delete_settled(
        self, connection: sqlite3.Connection, settled: Sequence[Settled], now_s: float
    ) -> tuple[int, int]:
        """Remove settled samples that are still here; returns the numbers of acknowledged and refused ones."""
        refused = total = 0
        for start in range(0, len(settled), _ROWS_PER_STATEMENT):
            part = {item.sample.sample_id: item for item in settled[start : start + _ROWS_PER_STATEMENT]}
            seqs = [item.sample.seq for item in part.values()]
            query = "SELECT seq, sample_id, size_bytes FROM samples WHERE "
            found = connection.execute(f"{query} seq IN {_marks(1, len(seqs))}", seqs).fetchall()
            found = [row for row in found if row[1] in part]
            # Row numbers start again in a new file, ids never repeat.
            if unmatched := list(part.keys() - {row[1] for row in found}):
                marks = _marks(1, len(unmatched))
                found += connection.execute(f"{query} sample_id IN {marks}", unmatched).fetchall()
            for _, sample_id, _ in found:
                if part[sample_id].refusal:
                    self._keep_refused(connection, part[sample_id], now_s)
                    refused += 1
            total += self._drop(connection, [(seq, size) for seq, _, size in found])
        return total - refused, refused

    @staticmethod
    def _keep_refused(connection: sqlite3.Connection, item: Settled, now_s: float) -> None:
        row = (item.sample.sample_id, item.refusal, now_s, item.sample.data)
        connection.execute("INSERT INTO refused (sample_id, reason, refused_at_s, data) VALUES (?, ?, ?, ?)", row)
        connection.execute("DELETE FROM refused WHERE seq <= (SELECT MAX(seq) FROM refused) - ?", (MAX_REFUSED,))

    def _drop_old(self, connection: sqlite3.Connection, now_s: float, in_flight: Collection[int]) -> int:
        limit_s, old = now_s - self._max_age_s, []
        # Numbers rise with time, so the first that is young enough ends the search.
        with closing(connection.execute("SELECT seq, size_bytes, spooled_at_s FROM samples ORDER BY seq")) as rows:
            for seq, size, spooled_at_s in rows:
                if spooled_at_s >= limit_s:
                    break
                if seq not in in_flight:
                    old.append((seq, size))
        return self._drop(connection, old)

    def _drop_least_suspicious(self, connection: sqlite3.Connection, in_flight: Collection[int]) -> int:
        if self.bytes <= self._max_bytes:
            return 0
        excess, victims = self.bytes - self._max_bytes, []
        order = "SELECT seq, size_bytes FROM samples ORDER BY priority DESC, seq"
        with closing(connection.execute(order)) as rows:
            for seq, size in rows:
                if excess <= 0:
                    break
                if seq not in in_flight:
                    victims.append((seq, size))
                    excess -= size
        return self._drop(connection, victims)

    def _drop(self, connection: sqlite3.Connection, rows: Sequence[tuple[int, int]]) -> int:
        for start in range(0, len(rows), _ROWS_PER_STATEMENT):
            part = [seq for seq, _ in rows[start : start + _ROWS_PER_STATEMENT]]
            connection.execute(f"DELETE FROM samples WHERE seq IN {_marks(1, len(part))}", part)
        self.samples -= len(rows)
        self.bytes -= sum(size for _, size in rows)
        return len(rows)

    def _salvage(self, damaged: Path, settled: Collection[bytes]) -> None:
        """Copy the readable samples of a damaged file, from both ends up to the damaged pages."""
        cursors: dict[str, str] = {}
        counters: dict[str, int] = {}
        try:
            with contextlib.suppress(sqlite3.DatabaseError), closing(sqlite3.connect(damaged)) as connection:
                connection.execute(
                    "PRAGMA writable_schema = ON"
                )  # else SQLite refuses a file shorter than it should be
                with contextlib.suppress(sqlite3.Error):
                    found = connection.execute("SELECT source_id, position FROM cursors").fetchall()
                    cursors = {name: text for name, text in found if isinstance(name, str) and isinstance(text, str)}
                with contextlib.suppress(sqlite3.Error, ValueError, TypeError, AttributeError):
                    ((text,),) = connection.execute("SELECT value FROM counters").fetchall()
                    counters = {str(name): int(value) for name, value in json.loads(text).items()}
                self._take_over([], counters, cursors)  # first: sources go on from the cursors, however far this gets
                for part in _in_chunks(_readable(connection, settled), _CHUNK_BYTES):
                    self._take_over(part, {}, {})
        except StorageError as error:
            log.error("samples_not_all_salvaged", samples=self.samples, damaged=damaged, error=error)
            return
        log.warning("samples_salvaged", samples=self.samples, damaged=damaged)

    def _take_over(self, samples: list[NewSample], counters: dict[str, int], cursors: dict[str, str]) -> None:
        try:
            self.commit(samples, [], set(), {**self.saved_counters(), **counters}, cursors)
        except sqlite3.Error as error:
            reason = disk_error_text(error, self._path)
            raise StorageError(
                f"{self._path}: does not take what the damaged file gave ({reason}). Free some space."
            ) from None


def _readable(connection: sqlite3.Connection, settled: Collection[bytes]) -> Iterator[NewSample]:
    """Yield each readable sample that is not settled, once."""
    seen = set(settled)
    for order in ("", "DESC"):
        with contextlib.suppress(sqlite3.Error):
            query = f"SELECT * FROM samples NOT INDEXED ORDER BY seq {order}"  # the first agents' files, too
            for _, sample_id, priority, _, _, data in connection.execute(query):
                well_formed = isinstance(sample_id, bytes) and isinstance(priority, float) and isinstance(data, bytes)
                if well_formed and sample_id not in seen:
                    seen.add(sample_id)
                    yield NewSample(sample_id, priority, data)


def _in_chunks(samples: Iterable[NewSample], max_bytes: int) -> Iterator[list[NewSample]]:
    """Yield the samples in chunks of about `max_bytes`, because a whole spool may exceed the memory."""
    part: list[NewSample] = []
    size = 0
    for sample in samples:
        part.append(sample)
        size += len(sample.data)
        if size >= max_bytes:
            yield part
            part, size = [], 0
    if part:
        yield part


def _make_shrinkable(connection: sqlite3.Connection, path: Path) -> None:
    """Rewrite a file that cannot return free pages, unless that takes long or the disk has no room.

    New files are rewritten, too: their mode is set before the first table or by VACUUM.
    """
    if _pragma(connection, "auto_vacuum") == _INCREMENTAL:
        return
    used_pages = _pragma(connection, "page_count") - _pragma(connection, "freelist_count")
    used_bytes = used_pages * _pragma(connection, "page_size")
    try:
        free_bytes = shutil.disk_usage(path.parent).free
        if used_bytes > _MAX_REWRITTEN_BYTES or free_bytes < 2 * used_bytes:
            log.info("spool_not_compacted", path=path, used_bytes=used_bytes, free_bytes=free_bytes)
            return
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except (sqlite3.Error, OSError) as error:
        log.warning("spool_not_compacted", path=path, reason=error)


def _excess_pages(connection: sqlite3.Connection) -> bool:
    """Return whether more pages are free than the slack."""
    if _pragma(connection, "auto_vacuum") != _INCREMENTAL:
        return False
    free, total = _pragma(connection, "freelist_count"), _pragma(connection, "page_count")
    return free * _pragma(connection, "page_size") > _SLACK_BYTES and free > _SLACK_SHARE * total


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _rename_priority(connection: sqlite3.Connection) -> None:
    """Rename the column of files of the first agents, which was called p_value."""
    if any(name == "p_value" for _, name, *_ in connection.execute("PRAGMA table_info(samples)")):
        connection.execute("ALTER TABLE samples RENAME COLUMN p_value TO priority")


def _insert(connection: sqlite3.Connection, rows: Sequence[tuple[bytes, float, float, int, bytes]]) -> None:
    for start in range(0, len(rows), _ROWS_PER_STATEMENT):
        part = rows[start : start + _ROWS_PER_STATEMENT]
        connection.execute(
            "INSERT INTO samples (sample_id, priority, spooled_at_s, size_bytes, data) VALUES " + _marks(len(part), 5),
            [value for row in part for value in row],
        )


@functools.lru_cache(maxsize=2 * _ROWS_PER_STATEMENT)
def _marks(rows: int, columns: int) -> str:
    """Return the placeholders for the rows of a statement."""
    return ", ".join(["(" + ", ".join(["?"] * columns) + ")"] * rows)
