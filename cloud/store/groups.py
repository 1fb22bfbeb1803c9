"""Groups of devices: made, renamed and removed; a group that a device or a setting names exists, too."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store import audit
from cloud.store.engine import Store
from cloud.store.group_settings import REPORT_WITHIN_S, GroupState, follows
from cloud.store.moves import rename_in_moves
from cloud.store.registry import current_bundles
from cloud.store.releases import groups_by_name
from cloud.store.schema import (
    DEFAULT_PLACE,
    bundle_groups,
    device_groups,
    devices,
    group_changes,
    group_settings,
    heartbeats,
    tokens,
    webhooks,
)
from cloud.store.sites import of_sites
from shared.errors import DataError

MAX_GROUPS = 1000
MAX_LATE = 200


class GroupRefusedError(DataError):
    """A group that cannot be made, renamed or removed as asked."""


class UnknownGroupError(DataError):
    """A group that does not exist."""


@dataclass(frozen=True, slots=True)
class LateDevice:
    """Device that does not report the settings of its group within REPORT_WITHIN_S of the change, and why."""

    device_id: str
    reason: str


async def make_group(store: Store, name: str, actor: str | None = None) -> None:
    """Make a group without devices; raises GroupRefusedError if there is one of that name, or too many."""
    async with store.writing() as connection:
        if await _exists(connection, name):
            raise GroupRefusedError(f"There is a group {name} already.")
        count = (await connection.execute(select(func.count()).select_from(device_groups))).scalar_one()
        if count >= MAX_GROUPS:
            raise GroupRefusedError(f"There are {MAX_GROUPS} groups already: remove one first.")
        await connection.execute(insert(device_groups).values(group_name=name, made_at_s=time.time()))
        await audit.record(connection, actor or store.actor, audit.AuditAction.GROUP_MADE, name)


async def rename_group(store: Store, name: str, new_name: str, actor: str | None = None) -> None:
    """Rename a group with its devices, open tokens, settings, history, bundles, webhooks, and moves to undo.

    Sinks of the settings file keep the old name of the group. Raises UnknownGroupError, or GroupRefusedError for
    the default group or a name that is taken.
    """
    async with store.writing() as connection:
        await _check_may_change(connection, name)
        if await _exists(connection, new_name):
            raise GroupRefusedError(f"There is a group {new_name} already: move the devices there instead.")
        for table in (devices, tokens, device_groups, group_settings, group_changes, bundle_groups):
            of_group = table.c.group_name == name
            await connection.execute(update(table).where(of_group).values(group_name=new_name))
        await _rename_in_webhooks(connection, name, new_name)
        await rename_in_moves(connection, name, new_name)
        details = {"name": new_name}
        await audit.record(connection, actor or store.actor, audit.AuditAction.GROUP_RENAMED, name, **details)


async def remove_group(store: Store, name: str, actor: str | None = None) -> None:
    """Remove a group without devices, with its settings and history.

    Raises UnknownGroupError. Raises GroupRefusedError if it is the default group, if it has a device or an open token,
    and if it is the only group of a bundle name, because that name would then go to every group.
    """
    async with store.writing() as connection:
        await _check_may_change(connection, name)
        in_it = int((await connection.execute(_devices_of(name))).scalar_one())
        if in_it:
            devices_in_it = f"{in_it} device{'s' if in_it != 1 else ''}"
            raise GroupRefusedError(f"{name} has {devices_in_it}: move them to another group first.")
        open_tokens = select(tokens.c.device_id).where(tokens.c.group_name == name, *_is_open(time.time()))
        if (await connection.execute(open_tokens.limit(1))).first():
            raise GroupRefusedError(f"{name} is the group of an enrolment token: delete the token first.")
        for bundle_name, named in sorted((await groups_by_name(connection)).items()):
            if named == {name}:
                raise GroupRefusedError(
                    f"The bundles {bundle_name} are released to {name} alone: release them to another group first."
                )
        for table in (device_groups, group_settings, group_changes, bundle_groups):
            await connection.execute(delete(table).where(table.c.group_name == name))
        await audit.record(connection, actor or store.actor, audit.AuditAction.GROUP_REMOVED, name)


async def bundles_of_groups(connection: AsyncConnection, names: Collection[str]) -> dict[str, list[str]]:
    """Return the ids of the current bundles that each of these groups gets."""
    restricted = await groups_by_name(connection)
    found: dict[str, list[str]] = {name: [] for name in names}
    for bundle in await current_bundles(connection):
        for name in found:
            if bundle.name not in restricted or name in restricted[bundle.name]:
                found[name].append(bundle.bundle_id)
    return found


async def late_devices(
    connection: AsyncConnection, state: GroupState, now_s: float, *, late_after_s: float, sites: Collection[str] = ()
) -> list[LateDevice]:
    """Return the devices that do not report the settings of their group, with the reason, at most MAX_LATE by id.

    A device without a heartbeat for `late_after_s` is silent. Within REPORT_WITHIN_S of a change only refusals count.
    """
    columns = (heartbeats.c.received_at_s, heartbeats.c.settings, heartbeats.c.settings_refusal)
    query = select(devices.c.device_id, *columns).select_from(devices.outerjoin(heartbeats))
    query = query.where(_in_group(state.group), devices.c.revoked_at_s.is_(None), *of_sites(sites))
    is_due = state.changed_at_s is not None and now_s - state.changed_at_s > REPORT_WITHIN_S
    late: list[LateDevice] = []
    for device_id, heard_at_s, in_force, refusal in await connection.execute(query.order_by(devices.c.device_id)):
        if refusal:
            late.append(LateDevice(device_id, f"It refuses them: {refusal}"))
        elif is_due and not follows(state.settings, in_force):
            late.append(LateDevice(device_id, _reason(heard_at_s, in_force, now_s - late_after_s)))
        if len(late) == MAX_LATE:
            break
    return late


def _reason(heard_at_s: float | None, in_force: object, silent_since_s: float) -> str:
    if heard_at_s is None:
        return "It has sent no heartbeat yet: start its agent."
    if heard_at_s < silent_since_s:
        return "It is silent, and gets them with its next heartbeat."
    if in_force is None:
        return "Its agent reports no settings: update it."
    return "It reports other settings: look at its log."


def _in_group(name: str) -> ColumnElement[bool]:
    return (devices.c.group_name == name) & devices.c.removed_at_s.is_(None)


def _devices_of(name: str) -> Select[Any]:
    return select(func.count()).select_from(devices).where(_in_group(name))


def _is_open(now_s: float) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return tokens.c.spent_at_s.is_(None), tokens.c.expires_at_s > now_s


async def _rename_in_webhooks(connection: AsyncConnection, name: str, new_name: str) -> None:
    for webhook_id, groups in (await connection.execute(select(webhooks.c.webhook_id, webhooks.c.groups))).all():
        if name in groups:
            renamed = [new_name if group == name else group for group in groups]
            changed = update(webhooks).where(webhooks.c.webhook_id == webhook_id)
            await connection.execute(changed.values(groups=renamed))


async def _exists(connection: AsyncConnection, name: str) -> bool:
    if name == DEFAULT_PLACE:
        return True
    now_s = time.time()
    for table, *which in (
        (device_groups,),
        (group_settings,),
        (devices, devices.c.removed_at_s.is_(None)),
        (tokens, *_is_open(now_s)),
        (bundle_groups,),
    ):
        found = select(table.c.group_name).where(table.c.group_name == name, *which).limit(1)
        if (await connection.execute(found)).first() is not None:
            return True
    return False


async def _check_may_change(connection: AsyncConnection, name: str) -> None:
    if name == DEFAULT_PLACE:
        raise GroupRefusedError(f"{DEFAULT_PLACE} is the group of devices without another one: it stays as it is.")
    if not await _exists(connection, name):
        raise UnknownGroupError(f"There is no group {name}.")
