"""SQL of new verdicts on SQLite, straight on the driver: one statement for many rows, as in ingest."""

import functools
import json
import sqlite3
import time
from collections.abc import Sequence
from itertools import chain
from typing import Any

from cloud.store.schema import EVENT_VERDICT
from cloud.store.segments import refuse_settled
from cloud.store.verdict_rows import MAP_COLUMNS, VERDICT_COLUMNS, NewVerdict, WrittenVerdicts

MAX_ROWS = 128  # of one statement
_EVENT_COLUMNS = ("cursor", "device_id", "kind", "created_at_s", "number")
_TAKE_OFF = """UPDATE samples SET judged = 1
WHERE judged = 0 AND number IN (SELECT value FROM json_each(?)) RETURNING number"""


def insert_verdicts(connection: sqlite3.Connection, rows: Sequence[NewVerdict]) -> WrittenVerdicts:
    """Take the samples off the queue, and insert verdicts and events of those that waited; see `Store.add_verdicts`."""
    refuse_settled(row.segment_id for row in rows)
    now_s = time.time()
    numbers = json.dumps([row.number for row in rows])
    waited = {number for (number,) in connection.execute(_TAKE_OFF, (numbers,))}
    kept = [row.at(now_s) for row in rows if row.number in waited]
    _insert(connection, "verdicts", VERDICT_COLUMNS, [row.values for row in kept])
    _insert(connection, "anomaly_maps", MAP_COLUMNS, [row.map_values for row in kept if row.map_values is not None])
    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    first = 1 + (int(found[0]) if found is not None else 0)
    events = [
        (cursor, row.values[2], EVENT_VERDICT, row.values[1], row.number) for cursor, row in enumerate(kept, first)
    ]
    _insert(connection, "events", _EVENT_COLUMNS, events)
    return WrittenVerdicts(now_s, {row.number: cursor for cursor, row in enumerate(kept, first)})


def _insert(
    connection: sqlite3.Connection, table: str, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Insert rows by statements of a few sizes only, so the driver keeps them prepared."""
    start = 0
    while start < len(rows):
        count = min(MAX_ROWS, 1 << (len(rows) - start).bit_length() - 1)
        values = tuple(chain.from_iterable(rows[start : start + count]))
        connection.execute(_statement(table, columns, count), values)
        start += count


@functools.cache
def _statement(table: str, columns: tuple[str, ...], rows: int) -> str:
    marks = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([marks] * rows)}"
