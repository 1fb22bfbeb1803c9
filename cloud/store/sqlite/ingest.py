"""SQL of ingest on SQLite, straight on the driver: one statement for many rows.

The interpreter's lock is released while a statement runs. With one statement for each row the thread of the store
would wait for that lock after every row, behind an event loop that is busy.
"""

import functools
import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any

from cloud.store.sample_rows import PAYLOAD_COLUMNS, SAMPLE_COLUMNS, Row

MAX_ROWS = 128  # of one statement
_INSERT_SAMPLES = ("samples", SAMPLE_COLUMNS, " ON CONFLICT (sample_id) DO NOTHING")
_INSERT_PAYLOADS = ("payloads", PAYLOAD_COLUMNS, "")


def insert_samples(connection: sqlite3.Connection, rows: Sequence[Row]) -> dict[int, str]:
    """Insert new samples, in the transaction of `connection`.

    Returns the samples that are not new: the device that had sent the id of each before, by place in `rows`.
    """
    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'samples'").fetchone()
    first = 1 + (int(found[0]) if found is not None else 0)
    inserted = _insert(connection, _INSERT_SAMPLES, first, [row[0] for row in rows])
    if inserted == len(rows):
        _insert(connection, _INSERT_PAYLOADS, first, [row[1] for row in rows])
        return {}
    stored = {number for (number,) in connection.execute("SELECT number FROM samples WHERE number >= ?", (first,))}
    old = {}
    for place, row in enumerate(rows):
        if first + place in stored:
            _insert(connection, _INSERT_PAYLOADS, first + place, [row[1]])
        else:
            query = "SELECT device_id FROM samples WHERE sample_id = ?"
            old[place] = str(connection.execute(query, (row[0][0],)).fetchone()[0])
    return old


def _insert(
    connection: sqlite3.Connection,
    target: tuple[str, tuple[str, ...], str],
    first: int,
    rows: Sequence[tuple[Any, ...]],
) -> int:
    """Insert rows numbered from `first`; return how many were new.

    Statements have a few sizes only, so the driver keeps them prepared.
    """
    inserted = start = 0
    while start < len(rows):
        count = min(MAX_ROWS, 1 << (len(rows) - start).bit_length() - 1)
        values = chain.from_iterable(rows[start : start + count])
        inserted += connection.execute(_statement(*target, count), (first + start, *values)).rowcount
        start += count
    return inserted


@functools.cache
def _statement(table: str, columns: tuple[str, ...], conflict: str, rows: int) -> str:
    """Return an INSERT of `rows` rows; its first parameter is the number of the first one."""
    marks = ", ".join("?" * len(columns))
    values = ", ".join(f"(?1 + {place}, {marks})" for place in range(rows))
    return f"INSERT INTO {table} (number, {', '.join(columns)}) VALUES {values}{conflict}"
