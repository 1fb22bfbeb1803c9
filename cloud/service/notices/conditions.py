"""Problems that are present now, as the store and the disk show them."""

import asyncio
import shutil
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.notice_kinds import NoticeKind
from cloud.notice_settings import NoticeSettings
from cloud.rollouts.phases import RolloutPhase
from cloud.store import Store
from cloud.store.notices import Condition
from cloud.store.schema import devices, heartbeats, rollout_history, staged_rollouts
from cloud.words import bytes_words, duration_words

DAY_S = 86_400.0
MAX_SUBJECT_CHARACTERS = 256


async def present(
    store: Store, settings: NoticeSettings, data_dir: Path, *, started_at_s: float, now_s: float
) -> list[Condition]:
    """Return all present problems; raises StorageError.

    A device is silent only since `started_at_s`: while no service ran, no heartbeat could arrive.
    """
    async with store.reading() as connection:
        found = await _devices(connection, settings, started_at_s=started_at_s, now_s=now_s)
        found += await _rollouts(connection)
    found += _payload_store(store)
    return found + await asyncio.to_thread(_disk, data_dir, settings.service_free_bytes)


async def _devices(
    connection: AsyncConnection, settings: NoticeSettings, *, started_at_s: float, now_s: float
) -> list[Condition]:
    columns = (devices.c.device_id, devices.c.certificate_expires_at_s)
    query = (
        select(*columns, heartbeats.c.received_at_s, heartbeats.c.disk_free_bytes)
        .select_from(devices.outerjoin(heartbeats))
        .where(devices.c.revoked_at_s.is_(None))
    )
    found = []
    for device_id, expires_at_s, seen_at_s, free in await connection.execute(query):
        if seen_at_s is not None and now_s - max(seen_at_s, started_at_s) > settings.silent_after_s:
            text = f"Device {device_id} has sent no heartbeat for {duration_words(now_s - seen_at_s)}."
            found.append(Condition(NoticeKind.DEVICE_SILENT, device_id, text))
        if (left_s := expires_at_s - now_s) < settings.certificate_days * DAY_S:
            words = f"ends in {duration_words(left_s)}" if left_s > 0 else "has expired"
            text = f"The certificate of device {device_id} {words}, and its agent has not renewed it."
            found.append(Condition(NoticeKind.CERTIFICATE_EXPIRING, device_id, text))
        if free is not None and free < settings.device_free_bytes:
            text = f"The disk of device {device_id} has only {bytes_words(free)} left."
            found.append(Condition(NoticeKind.DEVICE_DISK_FULL, device_id, text))
    return found


async def _rollouts(connection: AsyncConnection) -> list[Condition]:
    """Return the names whose newest rollout was halted."""
    newest = select(func.max(staged_rollouts.c.number)).group_by(staged_rollouts.c.bundle_name)
    query = select(staged_rollouts.c.number, staged_rollouts.c.bundle_name, staged_rollouts.c.bundle_id).where(
        staged_rollouts.c.number.in_(newest), staged_rollouts.c.phase == RolloutPhase.HALTED.value
    )
    found = []
    for number, name, bundle_id in (await connection.execute(query)).all():
        history = select(rollout_history.c.reason).where(rollout_history.c.rollout == number)
        reason = (await connection.execute(history.order_by(rollout_history.c.number.desc()).limit(1))).scalar()
        text = f"The rollout of {name} to {bundle_id} was halted: {reason}"
        found.append(Condition(NoticeKind.ROLLOUT_HALTED, bundle_id, text))
    return found


def _payload_store(store: Store) -> list[Condition]:
    """Return whether the upkeep of segments, which runs in this process, met values that it cannot read now."""
    unreadable = store.segments.unreadable
    if not unreadable:
        return []
    text = (
        f"{sum(unreadable.values())} payloads and maps in {len(unreadable)} segments of {store.segments.url} cannot be "
        "read now. They are kept and tried again; removals of devices wait for them. Check the disk; vedette cloud "
        "doctor names the files and the remedy."
    )
    return [Condition(NoticeKind.PAYLOADS_UNREADABLE, store.segments.url[:MAX_SUBJECT_CHARACTERS], text)]


def _disk(data_dir: Path, least_bytes: int) -> list[Condition]:
    try:
        free = shutil.disk_usage(data_dir).free
    except OSError:  # the check of the store reports it
        return []
    text = f"The disk of the service at {data_dir} has only {bytes_words(free)} left."
    return [Condition(NoticeKind.SERVICE_DISK_FULL, str(data_dir), text)] if free < least_bytes else []
