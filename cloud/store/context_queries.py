"""Read-only queries on the surroundings of one verdict; each is bounded in rows and in bytes."""

from collections.abc import Sequence
from enum import StrEnum

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.payload_rows import COLUMNS, payload_message
from cloud.store.queries import StoredMap
from cloud.store.schema import anomaly_maps, devices, payloads
from vedette.v1 import sample_pb2

MAX_MAP_CELLS = 2**16  # of a map that is compared with others


class DeviceState(StrEnum):
    """Whether a device still belongs to the fleet."""

    ENROLLED = "enrolled"
    REVOKED = "revoked"
    REMOVED = "removed"


async def payloads_of(
    connection: AsyncConnection, numbers: Sequence[int], max_bytes: int
) -> dict[int, sample_pb2.Payload]:
    """Return the payloads of these samples that are still stored, by number: the first ones of `max_bytes` together."""
    sizes = select(payloads.c.number, func.length(payloads.c.data).label("size")).where(payloads.c.number.in_(numbers))
    known = {row.number: int(row.size) for row in await connection.execute(sizes)}
    chosen, total = [], 0
    for number in numbers:
        size = known.get(number)
        if size is None or total + size > max_bytes:
            continue
        total += size
        chosen.append(number)
    query = select(payloads.c.number, *(payloads.c[name] for name in COLUMNS)).where(payloads.c.number.in_(chosen))
    return {row["number"]: payload_message(row) for row in (await connection.execute(query)).mappings()}


async def maps_of(connection: AsyncConnection, numbers: Sequence[int]) -> dict[int, StoredMap]:
    """Return the cloud's anomaly maps of these samples, by number, up to MAX_MAP_CELLS each."""
    query = select(anomaly_maps).where(
        anomaly_maps.c.number.in_(numbers), anomaly_maps.c.height * anomaly_maps.c.width <= MAX_MAP_CELLS
    )
    return {row.number: StoredMap(row.height, row.width, row.cells) for row in await connection.execute(query)}


async def device_state(connection: AsyncConnection, device_id: str) -> DeviceState:
    """Return the state of a device; one without a row was removed."""
    query = select(devices.c.revoked_at_s, devices.c.removed_at_s).where(devices.c.device_id == device_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None or row.removed_at_s is not None:
        return DeviceState.REMOVED
    return DeviceState.REVOKED if row.revoked_at_s is not None else DeviceState.ENROLLED
