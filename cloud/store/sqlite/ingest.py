"""SQL of the inbox on SQLite, straight on the driver: one statement for many rows.

The interpreter's lock is released while a statement runs. With one statement for each row the thread of the store
would wait for that lock after every row, behind an event loop that is busy.
"""

import functools
import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any

from cloud.store.inbox_request import (
    INBOX_COLUMNS,
    PACKED_COLUMNS,
    Doubles,
    InboxRequest,
    Owners,
    Packed,
    Unpacking,
    ids_in,
)
from cloud.store.sample_rows import PAYLOAD_COLUMNS, SAMPLE_COLUMNS, Row
from cloud.store.segments import refuse_settled

MAX_ROWS = 128  # of one statement
MAX_REQUESTS = 128
_INSERT_SAMPLES = ("samples", SAMPLE_COLUMNS, " ON CONFLICT (sample_id) DO NOTHING")
_INSERT_PAYLOADS = ("payloads", PAYLOAD_COLUMNS, "")


def insert_requests(connection: sqlite3.Connection, requests: Sequence[InboxRequest]) -> list[Owners | None]:
    """Put requests into the inbox, up to MAX_REQUESTS in one statement; see `Store.append_requests`."""
    outcomes = list[Owners | None]()
    for start in range(0, len(requests), MAX_REQUESTS):
        outcomes += _insert_requests(connection, requests[start : start + MAX_REQUESTS])
    return outcomes


def _insert_requests(connection: sqlite3.Connection, requests: Sequence[InboxRequest]) -> list[Owners | None]:
    refuse_settled(item.segment_id for item in requests)
    values = chain.from_iterable([item.values for item in requests])
    inserted = connection.execute(_requests_statement(len(requests)), tuple(values))
    if inserted.rowcount == len(requests):
        return [None] * len(requests)
    query = "SELECT first_sample_id FROM inbox WHERE number > ?"
    last = inserted.lastrowid or 0
    new = {found for (found,) in connection.execute(query, (last - inserted.rowcount,))} if inserted.rowcount else set()
    outcomes = list[Owners | None]()
    for item in requests:
        first = item.sample_ids[0]
        outcomes.append(None if first in new else _owners(connection, item.sample_ids))
        new.discard(first)
    return outcomes


def _owners(connection: sqlite3.Connection, sample_ids: Sequence[bytes]) -> Owners:
    """Return the owners of those samples that are rows, or in the request of the inbox that begins with the first."""
    query = f"SELECT sample_id, device_id FROM samples WHERE sample_id IN ({', '.join('?' * len(sample_ids))})"
    owners: dict[bytes, str] = dict(connection.execute(query, tuple(sample_ids)).fetchall())
    begun = "SELECT device_id, data FROM inbox WHERE first_sample_id = ?"
    for device_id, data in connection.execute(begun, (sample_ids[0],)).fetchall():
        owners |= dict.fromkeys(ids_in(data), device_id)
    return owners


@functools.cache
def _requests_statement(count: int) -> str:
    given = ", ".join([f"({', '.join('?' * len(INBOX_COLUMNS))})"] * count)
    return (
        f"INSERT INTO inbox ({', '.join(INBOX_COLUMNS)}) "
        f"SELECT * FROM (VALUES {given}) AS given "
        "WHERE NOT EXISTS (SELECT 1 FROM samples WHERE sample_id = given.column1) ON CONFLICT DO NOTHING"
    )


def unpack(connection: sqlite3.Connection, numbers: Sequence[int]) -> list[Doubles]:
    """Turn requests of the inbox into samples, in the transaction of `connection`; see `Store.unpack`."""
    marks = ", ".join("?" * len(numbers))
    query = f"SELECT number, {', '.join(PACKED_COLUMNS)} FROM inbox WHERE number IN ({marks})"
    found: dict[int, Packed] = {row[0]: row[1:] for row in connection.execute(query, tuple(numbers)).fetchall()}
    unpacking = Unpacking([found[number] for number in numbers if number in found])
    old = insert_samples(connection, unpacking.rows)
    connection.execute(f"DELETE FROM inbox WHERE number IN ({marks})", tuple(numbers))
    return unpacking.doubles(old)


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
