"""Removal of a device with its data, in small transactions that can stop and go on at any time.

The request revokes the device in one transaction. After it the device has no access, and no list shows it. The service
then deletes its data; a row of `device_removals` says that there is some left.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Delete, Select, delete, false, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store import audit
from cloud.store.engine import Store
from cloud.store.heartbeat_history import history_rows_of
from cloud.store.near_copies import copies_of_device
from cloud.store.notices import delete_notices_of
from cloud.store.retention import Find, Key, Step, delete_found, in_chunks
from cloud.store.review.removal import items_of_device
from cloud.store.schema import (
    KIND,
    anomaly_maps,
    device_removals,
    devices,
    events,
    heartbeats,
    inbox,
    missed_reports,
    mutes,
    payloads,
    replay_buckets,
    replay_budgets,
    replay_days,
    review_items,
    rollout_devices,
    samples,
    sources,
    tokens,
    verdict_counts,
    verdicts,
)
from cloud.store.segment_upkeep import clean_dirty
from cloud.store.segments import SETTLED_S
from shared.errors import SettingsError
from shared.logs import EventLog

GRACE_S = 5.0  # requests that were admitted before the revocation have ended by then

_LOG = EventLog("removal")


@dataclass(frozen=True, slots=True)
class Removal:
    """Device whose data is being deleted; with `keep_verdicts` its verdicts, labels and maps stay."""

    device_id: str
    keep_verdicts: bool
    requested_at_s: float


async def begin_removal(store: Store, device_id: str, *, keep_verdicts: bool, actor: str | None = None) -> Removal:
    """Revoke a device and mark its data for deletion; raises SettingsError for an unknown id.

    A device that was removed with its verdicts kept can be removed again without them.
    """
    removal = Removal(device_id, keep_verdicts, time.time())
    marks = {
        "revoked_at_s": func.coalesce(devices.c.revoked_at_s, removal.requested_at_s),
        "removed_at_s": removal.requested_at_s,
    }
    async with store.writing() as connection:
        marked = await connection.execute(update(devices).where(devices.c.device_id == device_id).values(marks))
        if marked.rowcount == 0:
            raise SettingsError(f"No device {device_id!r} is enrolled: list the devices with vedette cloud devices.")
        for table in (tokens, heartbeats, device_removals):
            await connection.execute(delete(table).where(table.c.device_id == device_id))
        values = {"device_id": device_id, "keep_verdicts": keep_verdicts, "requested_at_s": removal.requested_at_s}
        await connection.execute(insert(device_removals).values(values))
        action = audit.AuditAction.DEVICE_REMOVED
        await audit.record(connection, actor or store.actor, action, device_id, keep_verdicts=keep_verdicts)
    return removal


async def removals(store: Store) -> list[Removal]:
    """Return the devices whose data is being deleted, the first request first."""
    query = select(device_removals).order_by(device_removals.c.requested_at_s)
    async with store.reading() as connection:
        return [Removal(**row) for row in (await connection.execute(query)).mappings()]


async def delete_data(store: Store, removal: Removal, *, service_runs: bool) -> bool:
    """Delete the data of a device in small transactions; return False if there will be more to delete later.

    Samples without a verdict stay for the analysis of a running service, which also needs GRACE_S for open requests.
    Where verdicts are kept, such samples get theirs first in any case. Segments with bytes of the device are rewritten.
    """
    device_id = removal.device_id
    await in_chunks(store, partial(_events_of, device_id))
    await in_chunks(store, partial(history_rows_of, device_id))
    await in_chunks(store, partial(copies_of_device, device_id))
    # In the order of a sample's way: one that moves between two queries is found by the second.
    waiting = [
        select(inbox.c.number).where(inbox.c.device_id == device_id),
        select(samples.c.number).where(samples.c.device_id == device_id, samples.c.judged == false()),
    ]
    async with store.reading() as connection:
        waited = await _any(connection, waiting)  # its payload may come behind the place of the deletion
    if removal.keep_verdicts:
        await delete_found(store, payloads.c.number, partial(_payloads_of, device_id), (), cleaned=(payloads,))
    else:
        await in_chunks(store, partial(items_of_device, device_id))
        contents = (payloads, anomaly_maps)
        await delete_found(store, samples.c.number, _next_of(_judged_of(device_id)), (), cleaned=contents)
        if not service_runs:
            await delete_found(store, inbox.c.number, _next_of(waiting[0]), (), cleaned=(inbox,))
            await delete_found(store, samples.c.number, _next_of(waiting[1]), (), cleaned=(payloads,))
    is_clean = await clean_dirty(store, SETTLED_S if service_runs else 0.0)
    left = waiting if removal.keep_verdicts else [*waiting, _judged_of(device_id)]
    async with store.writing() as connection:
        more = await _any(connection, left) or (removal.keep_verdicts and waited)
        if more or not is_clean or (service_runs and time.time() - removal.requested_at_s < GRACE_S):
            return False
        await _finish(connection, store.actor, removal)
    _LOG.info("device_removed", device_id=device_id, keep_verdicts=removal.keep_verdicts)
    return True


async def _any(connection: AsyncConnection, queries: Sequence[Select[tuple[int]]]) -> bool:
    """Return whether one of the queries finds a row."""
    found = [(await connection.execute(query.limit(1))).first() for query in queries]
    return any(row is not None for row in found)


async def _finish(connection: AsyncConnection, actor: str, removal: Removal) -> None:
    """Delete the small rest in the last transaction."""
    counts = [replay_days, replay_budgets, replay_buckets]
    tables = [events, heartbeats, tokens, rollout_devices, device_removals, *counts]
    if not removal.keep_verdicts:
        tables += [review_items, missed_reports, mutes, sources, verdict_counts, devices]
    for table in tables:
        await connection.execute(delete(table).where(table.c.device_id == removal.device_id))
    await delete_notices_of(connection, removal.device_id)
    action = audit.AuditAction.DEVICE_DATA_REMOVED
    await audit.record(connection, actor, action, removal.device_id, keep_verdicts=removal.keep_verdicts)


async def _payloads_of(device_id: str, connection: AsyncConnection, after: Key, rows: int) -> Step:
    """Find the payloads of the device's judged samples, in the order of an index of the verdicts."""
    order = [verdicts.c[name] for name in (*KIND, "judged_at_s", "number")]
    query = select(payloads.c.number, *order).select_from(verdicts).outerjoin(payloads, payloads.c.number == order[-1])
    query = query.where(verdicts.c.device_id == device_id).order_by(*order).limit(rows)
    if after:
        query = query.where(tuple_(*order) > tuple_(*after))
    found = (await connection.execute(query)).all()
    keys = [row[0] for row in found if row[0] is not None]
    return Step(keys, tuple(found[-1][1:]) if len(found) == rows else None)


def _events_of(device_id: str, rows: int) -> Delete:
    old = select(events.c.cursor).where(events.c.device_id == device_id).order_by(events.c.cursor).limit(rows)
    return delete(events).where(events.c.cursor.in_(old))


def _judged_of(device_id: str) -> Select[Any]:
    return select(verdicts.c.number).where(verdicts.c.device_id == device_id)


def _next_of(numbers: Select[Any]) -> Find:
    """Return the function that finds what is left of the numbers of a query, whose rows are then deleted."""

    async def find(connection: AsyncConnection, after: Key, rows: int) -> Step:
        keys = [row[0] for row in await connection.execute(numbers.limit(rows))]
        return Step(keys, after if len(keys) == rows else None)

    return find
