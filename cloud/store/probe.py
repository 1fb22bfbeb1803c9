"""Attempt to write, to find out whether the store takes samples."""

from typing import Any

from sqlalchemy import JSON, Column, Table, insert, select

from cloud.store.engine import Store
from cloud.store.schema import devices, events, inbox, samples


async def try_write(store: Store) -> None:
    """Write as ingest and analysis do and undo it, then commit a transaction; raises StorageError."""
    async with store.writing() as connection:
        device_id = (await connection.execute(select(devices.c.device_id).limit(1))).scalar_one_or_none()
        undone = await connection.begin_nested()
        await connection.execute(insert(events).values(empty_row(events)))
        if device_id is not None:
            for table in (inbox, samples):
                await connection.execute(insert(table).values(empty_row(table) | {"device_id": device_id}))
        await undone.rollback()
        await store.make_durable(connection)


def empty_row(table: Table) -> dict[str, Any]:
    """Return an empty or zero value for each column of `table` that takes no NULL and that the database does not fill.

    A column added to the schema is in the row without a change here.
    """
    return {
        column.name: _empty(column)
        for column in table.columns
        if not column.nullable and column.server_default is None and column is not table.autoincrement_column
    }


def _empty(column: Column[Any]) -> Any:
    return {} if isinstance(column.type, JSON) else column.type.python_type()
