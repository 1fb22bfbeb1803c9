"""Desired settings of groups of devices, and how many devices have them in force."""

import time
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store import audit
from cloud.store.engine import Store
from cloud.store.schema import DEFAULT_PLACE, devices, group_settings, heartbeats
from cloud.store.sites import of_sites
from shared.group_settings import GroupSettings


@dataclass(frozen=True, slots=True)
class GroupState:
    """Settings of a group, and its devices that are not revoked.

    `following` devices have the settings in force, `refusing` ones answered why they do not; the others have not
    answered since the change, or run an older agent.
    """

    group: str
    settings: GroupSettings
    devices: int
    following: int
    refusing: int


async def settings_by_group(connection: AsyncConnection) -> dict[str, GroupSettings]:
    """Return the settings of the groups that have some."""
    rows = await connection.execute(select(group_settings.c.group_name, group_settings.c.settings))
    return {name: GroupSettings.model_validate(settings) for name, settings in rows}


async def change_settings(
    store: Store,
    group: str,
    given: GroupSettings,
    *,
    unset: Collection[str] = (),
    replace: bool = False,
    actor: str | None = None,
) -> GroupSettings:
    """Change the given settings of a group and unset others; return all that it has then.

    With `replace` nothing is kept of those before. Devices get them with their next heartbeats. Raises StorageError.
    """
    async with store.writing() as connection:
        before = (await settings_by_group(connection)).get(group, GroupSettings())
        kept = {} if replace else {name: value for name, value in before.given().items() if name not in unset}
        after = GroupSettings.model_validate(kept | given.given())
        if after == before:
            return after
        await connection.execute(delete(group_settings).where(group_settings.c.group_name == group))
        if after.given():
            values = {"group_name": group, "settings": after.given(), "changed_at_s": time.time()}
            await connection.execute(insert(group_settings).values(values))
        details = {"before": before.given(), "after": after.given()}
        await audit.record(connection, actor or store.actor, audit.AuditAction.GROUP_SETTINGS, group, **details)
    return after


async def group_states(connection: AsyncConnection, sites: Collection[str] = ()) -> list[GroupState]:
    """Return all groups that have a device or settings, by name; with `sites` those of their devices alone."""
    desired = await settings_by_group(connection)
    query = (
        select(devices.c.group_name, heartbeats.c.settings, heartbeats.c.settings_refusal)
        .select_from(devices.outerjoin(heartbeats))
        .where(devices.c.revoked_at_s.is_(None), *of_sites(sites))
    )
    counts = {name: [0, 0, 0] for name in (DEFAULT_PLACE, *desired) if not sites}
    for name, in_force, refusal in await connection.execute(query):
        wanted = desired.get(name, GroupSettings()).given()
        count = counts.setdefault(name, [0, 0, 0])
        count[0] += 1
        if refusal:
            count[2] += 1
        elif in_force is not None and wanted.items() <= in_force.items():
            count[1] += 1
    return [GroupState(name, desired.get(name, GroupSettings()), *counts[name]) for name in sorted(counts)]
