"""SQL of new verdicts on PostgreSQL: one statement for each table, its columns as arrays."""

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store import claims
from cloud.store.engine import Store
from cloud.store.postgres.partitions import driver_of
from cloud.store.schema import EVENT_VERDICT
from cloud.store.segments import refuse_settled
from cloud.store.verdict_rows import MAP_COLUMNS, VERDICT_COLUMNS, NewVerdict, WrittenVerdicts

_TYPES = {
    "number": "int8",
    "judged_at_s": "float8",
    "p_value": "float8",
    "extrapolated": "bool",
    "height": "int4",
    "width": "int4",
    "cells": "bytea",
    "segment_id": "bytea",
    "segment_start": "int8",
    "segment_bytes": "int4",
    "segment_crc32": "int8",
}
_JSON = ("opinions", "contributions")
_INSERT_EVENTS = f"""
INSERT INTO events (device_id, kind, created_at_s, number)
SELECT device_id, '{EVENT_VERDICT}', judged_at_s, number
FROM unnest($1::int8[], $2::float8[], $3::text[]) WITH ORDINALITY AS g(number, judged_at_s, device_id, place)
ORDER BY place RETURNING number, cursor"""
# The bounds leave out other partitions.
_TAKE_OFF = "UPDATE samples SET judged = true WHERE number = ANY($1::int8[]) AND number BETWEEN $2 AND $3"


async def insert_verdicts(connection: AsyncConnection, store: Store, rows: Sequence[NewVerdict]) -> WrittenVerdicts:
    """Take the samples off the queue, and insert verdicts and events of those that waited; see `Store.add_verdicts`."""
    refuse_settled(row.segment_id for row in rows)
    waited = await claims.end(connection, store, [row.number for row in rows])
    now_s = time.time()
    kept = [row.at(now_s) for row in rows if row.number in waited]
    if not kept:
        return WrittenVerdicts(now_s, {})
    driver = await driver_of(connection)
    columns = _columns([row.values for row in kept])
    await driver.execute(_insert("verdicts", VERDICT_COLUMNS), *columns)
    if maps := [row.map_values for row in kept if row.map_values is not None]:
        await driver.execute(_insert("anomaly_maps", MAP_COLUMNS), *_columns(maps))
    events = await driver.fetch(_INSERT_EVENTS, *columns[:3])
    await driver.execute(_TAKE_OFF, columns[0], min(columns[0]), max(columns[0]))
    return WrittenVerdicts(now_s, {int(row["number"]): int(row["cursor"]) for row in events})


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _insert(table: str, columns: tuple[str, ...]) -> str:
    arrays = ", ".join(f"${place}::{_TYPES.get(name, 'text')}[]" for place, name in enumerate(columns, 1))
    values = ", ".join(f"{name}::json" if name in _JSON else name for name in columns)
    names = ", ".join(columns)
    return f"INSERT INTO {table} ({names}) SELECT {values} FROM unnest({arrays}) AS g({names})"
