"""Durable queue of alarm messages: alarms raised before a power cut are sent after it."""

import threading
from dataclasses import dataclass
from pathlib import Path

from edge.clock import SteadyClock
from edge.sqlite_file import open_checked

MAX_WAITING = 10_000  # per sink; the oldest are dropped
_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, sink TEXT NOT NULL, alarm_id TEXT NOT NULL, source_id TEXT NOT NULL,
  body TEXT NOT NULL, raised_at_s REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS by_sink ON outbox (sink, seq);
"""


@dataclass(frozen=True, slots=True)
class WaitingMessage:
    """A message that waits for its sink."""

    seq: int
    alarm_id: str
    source_id: str
    body: str
    raised_at_s: float


class Outbox:
    """Message file, safe to use from any thread. All methods raise sqlite3.Error while the disk refuses."""

    def __init__(self, path: Path) -> None:
        """Open or make the file. Raises StorageError."""
        self.path = path
        self._connection, self.set_aside = open_checked(path, _SCHEMA, synchronous="FULL")
        self._lock = threading.Lock()
        newest = self._connection.execute("SELECT raised_at_s FROM outbox ORDER BY seq DESC LIMIT 1").fetchone()
        self.clock = SteadyClock(*newest or ())

    def add(self, sink: str, alarm_id: str, source_id: str, body: str) -> int:
        """Store a message, and return the number of old ones of the sink that were dropped."""
        with self._lock, self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "INSERT INTO outbox (sink, alarm_id, source_id, body, raised_at_s) VALUES (?, ?, ?, ?, ?)",
                (sink, alarm_id, source_id, body, self.clock.now_s()),
            )
            return connection.execute(
                "DELETE FROM outbox WHERE sink = ?1 AND seq <= "
                "(SELECT seq FROM outbox WHERE sink = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
                (sink, MAX_WAITING),
            ).rowcount

    def oldest(self, sink: str, after_seq: int) -> WaitingMessage | None:
        """Return the oldest message of a sink with a higher number."""
        with self._lock:
            row = self._connection.execute(
                "SELECT seq, alarm_id, source_id, body, raised_at_s FROM outbox WHERE sink = ? AND seq > ? "
                "ORDER BY seq LIMIT 1",
                (sink, after_seq),
            ).fetchone()
        return None if row is None else WaitingMessage(*row)

    def remove(self, sink: str, up_to_seq: int) -> None:
        """Delete the messages up to this one, which were delivered or expired."""
        with self._lock:
            self._connection.execute("DELETE FROM outbox WHERE sink = ? AND seq <= ?", (sink, up_to_seq))

    def count(self, sink: str, after_seq: int) -> int:
        """Return the number of messages with a higher number."""
        with self._lock:
            return int(
                self._connection.execute(
                    "SELECT COUNT(*) FROM outbox WHERE sink = ? AND seq > ?", (sink, after_seq)
                ).fetchone()[0]
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()
