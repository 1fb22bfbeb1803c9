"""Payloads and maps of samples, read from the database or from segments.

While a segment is rewritten its values move to another one. So a value that is not at its place is looked up again; it
is lost only if its place is still the same.
"""

import functools
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, Select, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.engine import Store
from cloud.store.payload_rows import COLUMNS, payload_message
from cloud.store.sample_keys import is_sample
from cloud.store.schema import anomaly_maps, payloads, samples
from cloud.store.segments import PLACE_COLUMNS, LostValue, SegmentPlace, Values, place_of
from shared.modality import Modality
from shared.wire import MAX_MAP_CELLS
from vedette.v1 import sample_pb2

ATTEMPTS = 3
Row = Mapping[Any, Any]


@dataclass(frozen=True, slots=True)
class StoredMap:
    """Anomaly map as stored: `cells` are height x width uint8 in C order."""

    height: int
    width: int
    cells: bytes


@dataclass(frozen=True, slots=True)
class StoredPayload:
    """Payload of a sample as received, and the device's anomaly map.

    `loss`: why its data cannot be returned; the message is then empty. `is_gone`: for good.
    """

    modality: Modality
    judged: bool
    message: sample_pb2.Payload
    edge_map: StoredMap | None
    loss: str = ""
    is_gone: bool = False


async def rows_with_values(
    store: Store, read: Callable[[AsyncConnection], Awaitable[Sequence[Row]]]
) -> tuple[Sequence[Row], Values]:
    """Return the rows that `read` finds, with PLACE_COLUMNS, and the values of those that lie in segments.

    Raises StorageError if the database or the segments cannot be read now.
    """
    lost = set[SegmentPlace]()
    for _ in range(ATTEMPTS):
        async with store.reading() as connection:
            rows = await read(connection)
        values = await store.segments.read([place for row in rows if (place := place_of(row)) is not None])
        missing = {place for place, value in values.items() if isinstance(value, LostValue)}
        if missing <= lost:
            break
        lost = missing
    return rows, values


async def load_payloads(store: Store, numbers: Sequence[int]) -> dict[int, sample_pb2.Payload | LostValue]:
    """Return the payloads of these samples as received, by number; raises as `rows_with_values`."""
    rows, values = await rows_with_values(store, _found_by(_payloads_query(), {"numbers": numbers}))
    return {row["number"]: _payload(row, values) for row in rows}


@functools.cache
def _payloads_query() -> Select[Any]:
    """Return the query for payloads; its parameter `numbers` are those of the samples."""
    names = ("number", *COLUMNS, *PLACE_COLUMNS)
    given: BindParameter[int] = bindparam("numbers", expanding=True)
    return select(*(payloads.c[name] for name in names)).where(payloads.c.number.in_(given))


async def stored_payload(store: Store, sample_id: uuid.UUID) -> StoredPayload | None:
    """Return the payload of one sample; None if the sample is unknown or its payload has expired.

    Raises as `rows_with_values`.
    """
    columns = (column for column in payloads.c if column.name != "number")
    query = select(samples.c.modality, samples.c.judged, *columns).join(payloads, payloads.c.number == samples.c.number)
    rows, values = await rows_with_values(store, _of_sample(query, sample_id))
    if not rows:
        return None
    (row,) = rows
    edge_map = None
    if row["edge_map"] is not None:
        edge_map = StoredMap(row["edge_map_height"], row["edge_map_width"], row["edge_map"])
    payload = _payload(row, values)
    if isinstance(payload, LostValue):
        loss = payload.reason, payload.is_gone
        return StoredPayload(Modality(row["modality"]), row["judged"], sample_pb2.Payload(), edge_map, *loss)
    return StoredPayload(Modality(row["modality"]), row["judged"], payload, edge_map)


async def stored_map(store: Store, sample_id: uuid.UUID) -> StoredMap | None:
    """Return the cloud's anomaly map of one sample; None if it has none, or if it is lost.

    Raises as `rows_with_values`.
    """
    names = ("height", "width", "cells", *PLACE_COLUMNS)
    query = select(*(anomaly_maps.c[name] for name in names))
    query = query.join(samples, samples.c.number == anomaly_maps.c.number)
    rows, values = await rows_with_values(store, _of_sample(query, sample_id))
    cells = cells_of(rows[0], values) if rows else None
    return StoredMap(rows[0]["height"], rows[0]["width"], cells) if cells is not None else None


async def first_payloads(store: Store, numbers: Sequence[int], max_bytes: int) -> dict[int, sample_pb2.Payload]:
    """Return the payloads of these samples that are still stored, by number: the first ones of `max_bytes` together.

    Raises as `rows_with_values`.
    """
    size = func.coalesce(payloads.c.segment_bytes, func.length(payloads.c.data)).label("size")
    query = select(payloads.c.number, size).where(payloads.c.number.in_(numbers))
    async with store.reading() as connection:
        known = {row.number: int(row.size) for row in await connection.execute(query)}
    chosen, total = [], 0
    for number in numbers:
        if number in known and total + known[number] <= max_bytes:
            total += known[number]
            chosen.append(number)
    found = await load_payloads(store, chosen)
    return {number: payload for number, payload in found.items() if not isinstance(payload, LostValue)}


async def load_maps(store: Store, numbers: Sequence[int], max_cells: int = MAX_MAP_CELLS) -> dict[int, StoredMap]:
    """Return the anomaly maps of these samples, by number; without those that have none, a larger or a lost one.

    Raises as `rows_with_values`.
    """
    names = ("number", "height", "width", "cells", *PLACE_COLUMNS)
    is_wanted = anomaly_maps.c.number.in_(numbers), anomaly_maps.c.height * anomaly_maps.c.width <= max_cells
    query = select(*(anomaly_maps.c[name] for name in names)).where(*is_wanted)
    rows, values = await rows_with_values(store, _found_by(query))
    cells = {row["number"]: cells_of(row, values) for row in rows}
    sizes = {row["number"]: (row["height"], row["width"]) for row in rows}
    return {number: StoredMap(*sizes[number], found) for number, found in cells.items() if found is not None}


def _found_by(
    query: Select[Any], given: Mapping[str, Any] | None = None
) -> Callable[[AsyncConnection], Awaitable[Sequence[Row]]]:
    async def read(connection: AsyncConnection) -> Sequence[Row]:
        return list((await connection.execute(query, given)).mappings())

    return read


def _of_sample(query: Select[Any], sample_id: uuid.UUID) -> Callable[[AsyncConnection], Awaitable[Sequence[Row]]]:
    async def read(connection: AsyncConnection) -> Sequence[Row]:
        found = query.where(is_sample(connection, sample_id.bytes))
        return list((await connection.execute(found)).mappings())

    return read


def cells_of(row: Row, values: Values) -> bytes | None:
    """Return the cells of a map; None if the row has no map, or if it is lost."""
    place = place_of(row)
    if place is None:
        cells: bytes | None = row["cells"]
        return cells
    found = values[place]
    return found if isinstance(found, bytes) else None


def _payload(row: Row, values: Values) -> sample_pb2.Payload | LostValue:
    place = place_of(row)
    if place is None:
        return payload_message(row, row["data"])
    found = values[place]
    return found if isinstance(found, LostValue) else payload_message(row, found)
