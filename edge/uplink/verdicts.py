"""Store of received verdicts, of the event cursor, and of the samples that await a verdict."""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from edge.disk import disk_error_text
from edge.sqlite_file import open_checked
from edge.uplink.audit_ledger import SCHEMA as AUDIT_SCHEMA
from edge.uplink.audit_ledger import AuditLedger
from shared.logs import EventLog, Throttle
from shared.samples import Decision, Verdict, p_value_to_column

MAX_VERDICTS = 100_000
MAX_AWAITED = 1_000_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS verdicts (
  sample_id BLOB PRIMARY KEY, decision TEXT NOT NULL, p_value REAL NOT NULL, bundle_id TEXT NOT NULL,
  judged_at_s REAL NOT NULL, received_at_s REAL NOT NULL, reason TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_time ON verdicts (received_at_s);
CREATE TABLE IF NOT EXISTS awaited (sample_id BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS progress (
  only_row INTEGER PRIMARY KEY CHECK (only_row = 1), cursor INTEGER NOT NULL, verdicts INTEGER NOT NULL,
  anomalous INTEGER NOT NULL
);
INSERT OR IGNORE INTO progress VALUES (1, 0, 0, 0);
"""

log = EventLog("verdicts")


class VerdictStore:
    """Bounded table of verdicts, safe to use from any thread. Cursor and verdicts change in one transaction.

    `audits` counts those on audits, in the same transaction.
    """

    def __init__(self, path: Path, max_verdicts: int = MAX_VERDICTS) -> None:
        """Open or create the file; raises StorageError."""
        # NORMAL is enough: after a power cut the cursor is as old as the verdicts, so the last ones are read again.
        self.path = path
        self._connection, self.set_aside = open_checked(path, _SCHEMA + AUDIT_SCHEMA, synchronous="NORMAL")
        self._lock = threading.Lock()
        self.audits = AuditLedger(self._connection, self._lock)
        self._awaited = 0
        self._throttle = Throttle()
        self._max_verdicts = max_verdicts
        (newest_s,) = self._connection.execute("SELECT COALESCE(MAX(received_at_s), 0) FROM verdicts").fetchone()
        self._newest_s = float(newest_s)
        self._count = int(self._connection.execute("SELECT COUNT(*) FROM verdicts").fetchone()[0])

    @property
    def cursor(self) -> int:
        """Cursor of the last handled event, 0 before the first."""
        with self._lock:
            return int(self._connection.execute("SELECT cursor FROM progress").fetchone()[0])

    def totals(self) -> dict[str, int]:
        """Return the totals of stored verdicts by the names of the counters, as durable as the verdicts."""
        with self._lock:
            verdicts, anomalous = self._connection.execute("SELECT verdicts, anomalous FROM progress").fetchone()
        return {"verdicts": int(verdicts), "verdicts_anomalous": int(anomalous)}

    def store(self, verdicts: Sequence[Verdict], cursor: int) -> list[Verdict]:
        """Store verdicts and the cursor of the last event; returns the new verdicts. Raises sqlite3.Error."""
        new: list[Verdict] = []
        with self._lock:
            with self._connection as connection:
                # Times never fall, even if the clock was set back: the verdicts that came first are deleted first.
                now_s = self._newest_s = max(time.time(), self._newest_s)
                connection.execute("BEGIN IMMEDIATE")
                for verdict in verdicts:
                    key = verdict.sample_id.bytes
                    done = connection.execute(
                        "INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?)",
                        (
                            key,
                            verdict.decision,
                            p_value_to_column(verdict.p_value),
                            verdict.bundle_id,
                            verdict.judged_at_s,
                            now_s,
                            verdict.reason,
                        ),
                    )
                    if done.rowcount:
                        new.append(verdict)
                        connection.execute("DELETE FROM awaited WHERE sample_id = ?", (key,))
                self.audits.count(connection, new)
                anomalous = sum(verdict.decision is Decision.ANOMALOUS for verdict in new)
                connection.execute(
                    "UPDATE progress SET cursor = ?, verdicts = verdicts + ?, anomalous = anomalous + ?",
                    (cursor, len(new), anomalous),
                )
                self._count += len(new) - self._forget(connection, self._count + len(new) - self._max_verdicts)
            self.audits.committed()
        return new

    def expect(self, sample_ids: Sequence[bytes]) -> None:
        """Note that acknowledged samples await a verdict, except those that have one already."""
        with self._lock, self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT OR IGNORE INTO awaited SELECT ?1 "
                "WHERE NOT EXISTS (SELECT 1 FROM verdicts WHERE sample_id = ?1)",
                [(sample_id,) for sample_id in sample_ids],
            )
            # UUIDv7 sorts by time: the oldest are deleted if a service never answers.
            connection.execute(
                "DELETE FROM awaited WHERE sample_id IN (SELECT sample_id FROM awaited ORDER BY sample_id "
                "LIMIT MAX(0, (SELECT COUNT(*) FROM awaited) - ?))",
                (MAX_AWAITED,),
            )

    def awaited(self) -> int:
        """Return the number of acknowledged samples without a verdict; the last known one after a disk error."""
        with self._lock:
            try:
                self._awaited = int(self._connection.execute("SELECT COUNT(*) FROM awaited").fetchone()[0])
            except sqlite3.Error as error:
                if self._throttle.allow("awaited"):
                    text = disk_error_text(error, self.path)
                    log.error("verdicts_unreadable", error=text, advice="free some space, or start the agent again")
            return self._awaited

    def close(self) -> None:
        """Write noted audits and close the file."""
        with contextlib.suppress(sqlite3.Error):
            self.audits.write()
        with self._lock:
            self._connection.close()

    @staticmethod
    def _forget(connection: sqlite3.Connection, excess: int) -> int:
        if excess <= 0:
            return 0
        connection.execute(
            "DELETE FROM verdicts WHERE sample_id IN (SELECT sample_id FROM verdicts ORDER BY received_at_s LIMIT ?)",
            (excess,),
        )
        return excess
