"""Copy of all rows from one store to another, of the same or the other back end."""

from typing import Any

from sqlalchemy import Table, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.postgres.partitions import ADD_ALL_KEYS, driver_of, keep_ahead
from cloud.store.schema import (
    account_links,
    claims,
    metadata,
    samples,
    segment_folder,
    sessions,
    sources,
    verdict_counts,
)

ROWS_AT_ONCE = 500
BYTES_AT_ONCE = 16 * 2**20
_READ_AHEAD = 20  # rows; a payload may have 32 MiB
# Triggers count the verdicts as they are copied. A session or link that has ended must not come back. Each store has a
# folder of segments of its own.
_LEFT_OUT = (claims, verdict_counts, sources, sessions, account_links, segment_folder)
TABLES = tuple(table for table in metadata.sorted_tables if table not in _LEFT_OUT)


async def is_empty(connection: AsyncConnection) -> bool:
    """Return whether no table has a row."""
    for table in TABLES:
        if (await connection.execute(select(1).select_from(table).limit(1))).first() is not None:
            return False
    return True


async def copy_rows(source: AsyncConnection, target: AsyncConnection) -> int:
    """Copy the rows of all tables into an empty store of the same revision; return their number.

    The target goes on with the numbers of the source: a cursor is never used twice.
    """
    copied = 0
    if target.dialect.name == "postgresql":
        await keep_ahead(await driver_of(target), await _last_number(samples, source))
    for table in TABLES:
        copied += await _copy_table(table, source, target)
        if _assigns_numbers(table):
            await _continue_numbers(table, await _last_number(table, source), target)
    if target.dialect.name == "postgresql":
        await target.execute(text(ADD_ALL_KEYS))
    return copied


async def _copy_table(table: Table, source: AsyncConnection, target: AsyncConnection) -> int:
    copied, size = 0, 0
    rows: list[dict[str, Any]] = []
    options = {"yield_per": _READ_AHEAD}
    async for row in (await source.stream(select(table), execution_options=options)).mappings():
        rows.append(dict(row))
        size += sum(len(value) for value in row.values() if isinstance(value, bytes))
        if len(rows) >= ROWS_AT_ONCE or size >= BYTES_AT_ONCE:
            await target.execute(insert(table), rows)
            copied, size, rows = copied + len(rows), 0, []
    if rows:
        await target.execute(insert(table), rows)
    return copied + len(rows)


def _assigns_numbers(table: Table) -> bool:
    column = table.autoincrement_column
    return column is not None and column.autoincrement is True


def _sequence(table: Table) -> str:
    assert table.autoincrement_column is not None
    return f"{table.name}_{table.autoincrement_column.name}_seq"


async def _last_number(table: Table, connection: AsyncConnection) -> int:
    """Return the last number that the store has assigned, perhaps to a row that was deleted; 0 for none."""
    if connection.dialect.name == "postgresql":
        query = text(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {_sequence(table)}")
    else:
        query = text(f"SELECT seq FROM sqlite_sequence WHERE name = '{table.name}'")
    assert table.autoincrement_column is not None
    largest = (await connection.execute(select(func.max(table.autoincrement_column)))).scalar_one()
    return max((await connection.execute(query)).scalar_one_or_none() or 0, largest or 0)


async def _continue_numbers(table: Table, last: int, connection: AsyncConnection) -> None:
    """Let the store assign numbers beyond `last`."""
    if not last:
        return
    if connection.dialect.name == "postgresql":
        await connection.execute(text(f"SELECT setval('{_sequence(table)}', :last)"), {"last": last})
        return
    name = {"name": table.name, "last": last}
    await connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": table.name})
    await connection.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)"), name)
