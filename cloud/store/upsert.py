"""Insert or update, in the words of each database."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

_INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


async def upsert(connection: AsyncConnection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows with the same columns each; a row whose primary key exists gets the new values of these columns."""
    if not rows:
        return
    statement = _INSERTS[connection.dialect.name](table)
    keys = [column.name for column in table.primary_key]
    changed = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    await connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), list(rows))


async def insert_new(connection: AsyncConnection, table: Table, values: dict[str, Any]) -> None:
    """Insert a row unless one with its primary key exists."""
    statement = _INSERTS[connection.dialect.name](table).values(values)
    await connection.execute(statement.on_conflict_do_nothing(index_elements=list(table.primary_key)))
