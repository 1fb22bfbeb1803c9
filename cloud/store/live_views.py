"""Entries of the audit log for live views: one for each minute in which somebody looks at a source."""

from sqlalchemy import func, select

from cloud.store import audit
from cloud.store.engine import Store
from cloud.store.schema import audit_log, devices
from shared.errors import SettingsError

ENTRY_S = 60.0  # that one entry stands for
MAX_ENTRIES = 256  # of one person, device and minute that are compared
NEWEST = 10_000  # entries of the log that are searched


async def check_enrolled(store: Store, device_id: str) -> None:
    """Raise SettingsError for an unknown device."""
    query = select(devices.c.device_id).where(devices.c.device_id == device_id)
    async with store.reading() as connection:
        if (await connection.execute(query)).one_or_none() is None:
            raise SettingsError(f"Device {device_id[:64]!r} is not enrolled here: see vedette cloud devices.")


async def note_live_view(store: Store, device_id: str, source_id: str, actor: str, now_s: float) -> None:
    """Add an entry unless the actor has one for this source within ENTRY_S; raises StorageError if that fails."""
    newest = select(func.max(audit_log.c.number)).scalar_subquery()
    recent = (
        select(audit_log.c.details)
        .where(
            audit_log.c.number > newest - NEWEST,
            audit_log.c.subject == device_id,
            audit_log.c.actor == actor,
            audit_log.c.action == audit.AuditAction.DEVICE_VIEWED.value,
            audit_log.c.at_s > now_s - ENTRY_S,
            audit_log.c.at_s <= now_s,  # entries of a clock that was set back hide no look
        )
        .order_by(audit_log.c.number.desc())
        .limit(MAX_ENTRIES)
    )
    async with store.reading() as connection:
        if any(details.get("source") == source_id for details in (await connection.execute(recent)).scalars()):
            return
    async with store.writing() as connection:
        await audit.record(connection, actor, audit.AuditAction.DEVICE_VIEWED, device_id, source=source_id)
