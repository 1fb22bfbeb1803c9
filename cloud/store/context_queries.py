"""Read-only query on the device of one verdict."""

from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.schema import devices


class DeviceState(StrEnum):
    """Whether a device still belongs to the fleet."""

    ENROLLED = "enrolled"
    REVOKED = "revoked"
    REMOVED = "removed"


async def device_state(connection: AsyncConnection, device_id: str) -> tuple[DeviceState, str]:
    """Return the state of a device and its site; one without a row was removed."""
    query = select(devices.c.revoked_at_s, devices.c.removed_at_s, devices.c.site).where(
        devices.c.device_id == device_id
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None or row.removed_at_s is not None:
        return DeviceState.REMOVED, row.site if row is not None else ""
    return (DeviceState.REVOKED if row.revoked_at_s is not None else DeviceState.ENROLLED), row.site
