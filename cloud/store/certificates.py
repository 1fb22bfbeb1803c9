"""Renewed certificates of devices: offered first, and the newest one from their first use on."""

from sqlalchemy import update

from cloud.store import audit
from cloud.store.engine import Store
from cloud.store.schema import devices
from shared.errors import EnrolmentError


async def offer_certificate(
    store: Store, device_id: str, serial: str, next_serial: str, next_expires_at_s: float
) -> None:
    """Remember a renewed certificate of the device whose newest one is `serial`; an earlier offer is void.

    Raises EnrolmentError for a device that was revoked or enrolled again meanwhile.
    """
    offered = {"next_certificate_serial": next_serial, "next_certificate_expires_at_s": next_expires_at_s}
    query = update(devices).where(
        devices.c.device_id == device_id, devices.c.certificate_serial == serial, devices.c.revoked_at_s.is_(None)
    )
    async with store.writing() as connection:
        if (await connection.execute(query.values(offered))).rowcount == 0:
            raise EnrolmentError(f"Device {device_id!r} was revoked or enrolled again meanwhile.")


async def adopt_certificate(store: Store, device_id: str, serial: str) -> None:
    """Make an offered certificate the newest one of its device, unless it is no longer offered."""
    query = update(devices).where(
        devices.c.device_id == device_id,
        devices.c.next_certificate_serial == serial,
        devices.c.revoked_at_s.is_(None),
    )
    values = {
        "certificate_serial": serial,
        "certificate_expires_at_s": devices.c.next_certificate_expires_at_s,
        "next_certificate_serial": None,
        "next_certificate_expires_at_s": None,
    }
    async with store.writing() as connection:
        if (await connection.execute(query.values(values))).rowcount:
            action = audit.AuditAction.DEVICE_RENEWED
            await audit.record(connection, f"device:{device_id}", action, device_id, certificate_serial=serial)
