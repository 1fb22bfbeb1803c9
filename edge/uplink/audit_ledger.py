"""Counts of verdicts on audits, by source and bundle, in the file of the verdicts.

A drawn sample is noted once it is in the spool and counted in the transaction that stores its verdict. A sample without
a verdict after LATE_S counts as anomalous until the verdict arrives: it may have left a full spool. Until then it is
left out, because the time to a verdict does not depend on the decision.

The counts at the last two restarts are kept, so the recent evidence covers one to two windows.
"""

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from shared.logs import EventLog, Throttle
from shared.miss_control import MissCounts
from shared.samples import Decision, Verdict

LATE_S = 86_400.0
FORGOTTEN_S = 30 * 86_400.0  # after which a verdict no longer changes the counts
MAX_TRACKED = 200_000
KEPT_BUNDLES = 4  # of each source
_WRITES_UNTIL_CHECK = 1000  # of the number of noted samples
_MOST_WAITING = 1000  # noted samples in memory
NOT_COUNTED = -1  # cell of an audit of a time without `max_miss_rate`
SCHEMA = """
CREATE TABLE IF NOT EXISTS tracked (
  sample_id BLOB PRIMARY KEY, stream INTEGER NOT NULL, cell INTEGER NOT NULL, is_audit INTEGER NOT NULL,
  part REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tracked_by_stream ON tracked (stream, is_audit);
CREATE TABLE IF NOT EXISTS streams (
  stream INTEGER PRIMARY KEY AUTOINCREMENT, source_id TEXT NOT NULL, bundle_id TEXT NOT NULL,
  UNIQUE (source_id, bundle_id)
);
CREATE TABLE IF NOT EXISTS tracked_verdicts (
  stream INTEGER NOT NULL, cell INTEGER NOT NULL, is_audit INTEGER NOT NULL, part REAL NOT NULL,
  outcome INTEGER NOT NULL, samples INTEGER NOT NULL, PRIMARY KEY (stream, cell, is_audit, part, outcome)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS window_starts (
  stream INTEGER NOT NULL, is_older INTEGER NOT NULL, cell INTEGER NOT NULL, is_audit INTEGER NOT NULL,
  part REAL NOT NULL, outcome INTEGER NOT NULL, samples INTEGER NOT NULL,
  PRIMARY KEY (stream, is_older, cell, is_audit, part, outcome)
) WITHOUT ROWID;
"""
_NORMAL, _ANOMALOUS, _UNDECIDED, _LOST, _LATE = range(5)
_OUTCOMES = {Decision.NORMAL: _NORMAL, Decision.ANOMALOUS: _ANOMALOUS, Decision.UNDECIDED: _UNDECIDED}
_COLUMNS = "sample_id, stream, cell, is_audit, part"
_COUNT = (
    "INSERT INTO tracked_verdicts VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET samples = samples + excluded.samples"
)

_Tally: TypeAlias = Counter[tuple[Any, ...]]  # number of samples by cell, is_audit, part and outcome

log = EventLog("verdicts")


class TrackedSample(NamedTuple):
    """Sample whose verdict counts.

    `cell` is that of its p-value in `shared.miss_control`, or NOT_COUNTED. `is_audit`: it was accepted and drawn.
    `part`: of its bet. `sample_id` is empty for a sample that was drawn and could not be sent.
    """

    sample_id: bytes
    cell: int
    is_audit: bool
    part: float


@dataclass(frozen=True, slots=True)
class AuditCounts:
    """Audits of one source and bundle.

    `judged` audits have a verdict or were given up; `anomalous` of them are anomalous, and `unknown` have no decision.
    `late` ones wait for longer than LATE_S. `pending` ones wait for less and are in no other figure. `evidence`:
    all samples with a cell, the unknown and late ones as anomalous. `recent` is the evidence since the last restart but
    one, with `recent_audits`; `since_restart` counts the audits since the last restart.
    """

    judged: int = 0
    anomalous: int = 0
    unknown: int = 0
    late: int = 0
    pending: int = 0
    evidence: MissCounts = field(default_factory=MissCounts)
    recent: MissCounts = field(default_factory=MissCounts)
    recent_audits: int = 0
    since_restart: int = 0

    @property
    def audits(self) -> int:
        """Audits that count."""
        return self.judged + self.late

    @property
    def without_decision(self) -> int:
        """Audits that count as anomalous because their decision is unknown."""
        return self.unknown + self.late


class AuditLedger:
    """Noted samples and their counts; safe to use from any thread. `version` grows with each change."""

    def __init__(self, connection: sqlite3.Connection, lock: threading.Lock) -> None:
        """Use tables of SCHEMA in the file of `connection`, which `lock` guards."""
        self._connection, self._lock = connection, lock
        self.version, self._writes = 0, 0
        self._waiting: list[tuple[str, str, TrackedSample]] = []
        self._throttle = Throttle()

    def note(self, source_id: str, bundle_id: str, samples: Sequence[TrackedSample]) -> None:
        """Note samples that are in the spool, or that could not be sent.

        They are written with the next verdicts or when counts are read; a crash before forgets them, whatever their
        verdict. Raises sqlite3.Error.
        """
        with self._lock:
            self._waiting += [(source_id, bundle_id, sample) for sample in samples]
            del self._waiting[:-MAX_TRACKED]  # while the disk refuses
            self.version += 1
            if len(self._waiting) >= _MOST_WAITING:
                self._write_alone()

    def write(self) -> None:
        """Write the noted samples. Raises sqlite3.Error."""
        with self._lock:
            self._write_alone()

    def count(self, connection: sqlite3.Connection, verdicts: Iterable[Verdict]) -> None:
        """Count new verdicts inside the transaction that stores them; `committed` MUST follow it."""
        self._write(connection)
        for verdict in verdicts:
            query = "DELETE FROM tracked WHERE sample_id = ? RETURNING stream, cell, is_audit, part"
            row = connection.execute(query, (verdict.sample_id.bytes,)).fetchone()
            if row is not None:
                connection.execute(_COUNT, (*row, _OUTCOMES[verdict.decision], 1))
                self.version += 1

    def committed(self) -> None:
        """Forget the noted samples in memory, once the transaction that wrote them is stored."""
        if self._waiting:
            self._waiting = []
            self.version += 1
        self._writes += 1

    def counts(self, source_id: str, bundle_id: str) -> AuditCounts:
        """Return the counts of one source and bundle, also while the disk refuses to write. Raises sqlite3.Error."""
        with self._lock:
            try:
                self._write_alone()
            except sqlite3.Error as error:
                if self._throttle.allow("write"):
                    log.error("audits_not_written", samples=len(self._waiting), error=str(error))
            query = "SELECT stream FROM streams WHERE source_id = ? AND bundle_id = ?"
            found = self._connection.execute(query, (source_id, bundle_id)).fetchone() or (-1,)
            rows = self._connection.execute(
                "SELECT cell, is_audit, part, outcome, samples FROM tracked_verdicts WHERE stream = ?", found
            ).fetchall()
            starts: tuple[_Tally, _Tally] = Counter(), Counter()
            for is_older, *key, samples in self._connection.execute(
                "SELECT is_older, cell, is_audit, part, outcome, samples FROM window_starts WHERE stream = ?", found
            ):
                starts[is_older][tuple(key)] = samples
            late = self._connection.execute(  # few samples are late: "+" keeps the index of streams out
                "SELECT cell, is_audit, part, COUNT(*) FROM tracked WHERE sample_id < ? AND +stream = ? "
                "GROUP BY cell, is_audit, part",
                (_id_at(time.time() - LATE_S), *found),
            ).fetchall()
            (tracked,) = self._connection.execute(
                "SELECT COUNT(*) FROM tracked WHERE stream = ? AND is_audit = 1", found
            ).fetchone()
            unwritten = [sample for *of, sample in self._waiting if of == [source_id, bundle_id]]
        totals: _Tally = Counter({tuple(key): samples for *key, samples in rows})
        for cell, is_audit, part, samples in late:
            totals[cell, is_audit, part, _LATE] += samples
        for sample in unwritten:
            if not sample.sample_id:
                totals[sample.cell, int(sample.is_audit), sample.part, _LOST] += 1
        pending = int(tracked) + sum(sample.is_audit for sample in unwritten if sample.sample_id)
        return _counts(totals, starts, pending)

    def restart(self, source_id: str, bundle_id: str) -> None:
        """Begin another window of recent evidence, and end the one before the last. Raises sqlite3.Error."""
        with self._lock, self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            of = (self._stream(connection, source_id, bundle_id),)
            connection.execute("DELETE FROM window_starts WHERE stream = ? AND is_older = 1", of)
            connection.execute("UPDATE window_starts SET is_older = 1 WHERE stream = ?", of)
            connection.execute(
                "INSERT INTO window_starts SELECT stream, 0, cell, is_audit, part, outcome, samples "
                "FROM tracked_verdicts WHERE stream = ?",
                of,
            )
            self.version += 1

    def _write_alone(self) -> None:
        """Write the noted samples in a transaction of their own."""
        if self._waiting:
            with self._connection as connection:
                connection.execute("BEGIN IMMEDIATE")
                self._write(connection)
            self.committed()

    def _write(self, connection: sqlite3.Connection) -> None:
        """Write the noted samples inside a transaction; one whose verdict is already stored counts at once."""
        streams: dict[tuple[str, str], int] = {}
        for source_id, bundle_id, sample in self._waiting:
            key = source_id, bundle_id
            if key not in streams:
                streams[key] = self._stream(connection, source_id, bundle_id)
            row = (streams[key], sample.cell, int(sample.is_audit), sample.part)
            query = "SELECT decision FROM verdicts WHERE sample_id = ?"
            known = connection.execute(query, (sample.sample_id,)).fetchone() if sample.sample_id else None
            if known is not None:
                connection.execute(_COUNT, (*row, _OUTCOMES[Decision(known[0])], 1))
            elif sample.sample_id:
                connection.execute("INSERT OR IGNORE INTO tracked VALUES (?, ?, ?, ?, ?)", (sample.sample_id, *row))
            else:
                connection.execute(_COUNT, (*row, _LOST, 1))
        if self._writes % _WRITES_UNTIL_CHECK == 0:
            self._give_up(connection)

    def _stream(self, connection: sqlite3.Connection, source_id: str, bundle_id: str) -> int:
        """Return the number of a source and bundle; a new one replaces the oldest of its source."""
        query = "SELECT stream FROM streams WHERE source_id = ? AND bundle_id = ?"
        found = connection.execute(query, (source_id, bundle_id)).fetchone()
        if found is not None:
            return int(found[0])
        connection.execute("INSERT INTO streams (source_id, bundle_id) VALUES (?, ?)", (source_id, bundle_id))
        old = "SELECT stream FROM streams WHERE source_id = ? ORDER BY stream DESC LIMIT -1 OFFSET ?"
        for (stream,) in connection.execute(old, (source_id, KEPT_BUNDLES)).fetchall():
            for table in ("tracked", "tracked_verdicts", "window_starts", "streams"):
                connection.execute(f"DELETE FROM {table} WHERE stream = ?", (stream,))
        return int(connection.execute(query, (source_id, bundle_id)).fetchone()[0])

    def _give_up(self, connection: sqlite3.Connection) -> None:
        """Count samples as lost for good whose verdict is overdue, or that are too many."""
        rows = connection.execute(
            f"SELECT {_COLUMNS} FROM tracked WHERE sample_id < ? ORDER BY sample_id LIMIT ?",
            (_id_at(time.time() - FORGOTTEN_S), MAX_TRACKED),
        ).fetchall()
        (tracked,) = connection.execute("SELECT COUNT(*) FROM tracked").fetchone()
        if (excess := tracked - len(rows) - MAX_TRACKED) > 0:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM tracked ORDER BY sample_id LIMIT ?",
                (len(rows) + excess,),
            ).fetchall()
        for sample_id, *row in rows:
            connection.execute("DELETE FROM tracked WHERE sample_id = ?", (sample_id,))
            connection.execute(_COUNT, (*row, _LOST, 1))


def _id_at(at_s: float) -> bytes:
    """Return the first sample id of a time; a UUIDv7 begins with its milliseconds."""
    return max(0, int(at_s * 1000)).to_bytes(6, "big")


def _counts(totals: _Tally, starts: tuple[_Tally, _Tally], waiting: int) -> AuditCounts:
    """Return the counts; `starts` are the totals at the last restart and at the one before."""
    newer, older = starts
    outcomes, recent_audits, since_restart = [0] * 5, 0, 0
    evidence, recent = MissCounts(), MissCounts()
    for key, samples in totals.items():
        cell, is_audit, part, outcome = key
        of_window = samples - older[key]
        outcomes[outcome] += samples * is_audit
        recent_audits += of_window * is_audit
        since_restart += (samples - newer[key]) * is_audit
        if cell != NOT_COUNTED:
            evidence.add(cell, anomalous=outcome != _NORMAL, part=part, count=samples)
            recent.add(cell, anomalous=outcome != _NORMAL, part=part, count=of_window)
    late = outcomes[_LATE]
    return AuditCounts(
        judged=sum(outcomes) - late,
        anomalous=outcomes[_ANOMALOUS],
        unknown=outcomes[_UNDECIDED] + outcomes[_LOST],
        late=late,
        pending=waiting - late,
        evidence=evidence,
        recent=recent,
        recent_audits=recent_audits,
        since_restart=since_restart,
    )
