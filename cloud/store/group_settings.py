"""Desired settings of groups of devices, their history, and how many devices have them in force."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store import audit
from cloud.store.engine import Store
from cloud.store.schema import DEFAULT_PLACE, device_groups, devices, group_changes, group_settings, heartbeats
from cloud.store.sites import of_sites
from shared.errors import DataError
from shared.group_settings import GroupSettings

REPORT_WITHIN_S = 600.0  # after a change; a device that has not reported the settings by then is listed
KEPT_CHANGES = 500  # of a group


class GroupChangedError(DataError):
    """The settings of a group are not those that the caller has seen."""


@dataclass(frozen=True, slots=True)
class GroupState:
    """Settings of a group, and its devices that are not revoked.

    `following` devices have the settings in force, `refusing` ones answered why they do not; the others have not
    answered since the change, or run an older agent. `version` is the number of the newest change, made at
    `changed_at_s`; 0 and None before the first one.
    """

    group: str
    settings: GroupSettings
    devices: int
    following: int
    refusing: int
    version: int = 0
    changed_at_s: float | None = None


@dataclass(frozen=True, slots=True)
class GroupChange:
    """One change of the settings of a group.

    `forecast` holds the expected figures, `outcome` those of the day after the change, None if unknown. `undoes`:
    number of the change that it took back.
    """

    number: int
    group: str
    at_s: float
    actor: str
    before: GroupSettings
    after: GroupSettings
    forecast: dict[str, Any] | None
    outcome: dict[str, Any] | None
    undoes: int | None


@dataclass(frozen=True, slots=True)
class ChangeFacts:
    """Facts of a change beside its settings: author, the version that was seen, and the forecast for the history.

    With `if_version` the change is refused if the group has another version.
    """

    actor: str | None = None
    if_version: int | None = None
    forecast: Mapping[str, Any] | None = field(default=None, hash=False)
    undoes: int | None = None


NO_FACTS = ChangeFacts()


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
    facts: ChangeFacts = NO_FACTS,
) -> tuple[GroupSettings, int]:
    """Change the given settings of a group and unset others; return all that it has then, and their version.

    With `replace` nothing is kept of those before. Devices get them with their next heartbeats, and the change is in
    the history. Raises GroupChangedError, StorageError.
    """
    async with store.writing() as connection:
        version = await _checked_version(connection, group, facts.if_version)
        before = (await settings_by_group(connection)).get(group, GroupSettings())
        kept = {} if replace else {name: value for name, value in before.given().items() if name not in unset}
        after = GroupSettings.model_validate(kept | given.given())
        if after != before:
            version = await _write(connection, group, before, after, facts, store.actor)
    return after, version


async def undo_change(store: Store, group: str, number: int, actor: str | None = None) -> GroupSettings:
    """Take back the newest change of a group, which is a change, too; return the settings that it has then.

    Raises GroupChangedError if `number` is not the newest change.
    """
    async with store.writing() as connection:
        await _checked_version(connection, group, number)
        row = (await connection.execute(select(group_changes).where(group_changes.c.number == number))).one()
        now = (await settings_by_group(connection)).get(group, GroupSettings())
        after = GroupSettings.model_validate(row.before)
        await _write(connection, group, now, after, ChangeFacts(actor, undoes=number), store.actor)
    return after


async def changes_of(
    connection: AsyncConnection, group: str, *, before: int | None = None, size: int = 50
) -> list[GroupChange]:
    """Return the newest `size` changes of a group, or the next ones older than the number `before`."""
    query = select(group_changes).where(group_changes.c.group_name == group)
    if before is not None:
        query = query.where(group_changes.c.number < before)
    rows = await connection.execute(query.order_by(group_changes.c.number.desc()).limit(size))
    return [_change(dict(row)) for row in rows.mappings()]


async def group_states(connection: AsyncConnection, sites: Collection[str] = ()) -> list[GroupState]:
    """Return all groups that were made or have a device or settings, by name; with `sites` those of their devices."""
    desired = await settings_by_group(connection)
    query = (
        select(devices.c.group_name, heartbeats.c.settings, heartbeats.c.settings_refusal)
        .select_from(devices.outerjoin(heartbeats))
        .where(devices.c.revoked_at_s.is_(None), *of_sites(sites))
    )
    made = (await connection.execute(select(device_groups.c.group_name))).scalars()
    counts = {name: [0, 0, 0] for name in (DEFAULT_PLACE, *desired, *made) if not sites}
    for name, in_force, refusal in await connection.execute(query):
        count = counts.setdefault(name, [0, 0, 0])
        count[0] += 1
        if refusal:
            count[2] += 1
        elif follows(desired.get(name, GroupSettings()), in_force):
            count[1] += 1
    versions = await _versions(connection)
    return [
        GroupState(name, desired.get(name, GroupSettings()), *counts[name], *versions.get(name, (0, None)))
        for name in sorted(counts)
    ]


async def group_sizes(connection: AsyncConnection, sites: Collection[str] = ()) -> dict[str, int]:
    """Return the devices that are not revoked of each group of `group_states`, by name; no heartbeat is read."""
    counted = select(devices.c.group_name, func.count()).where(devices.c.revoked_at_s.is_(None), *of_sites(sites))
    sizes = {name: int(count) for name, count in await connection.execute(counted.group_by(devices.c.group_name))}
    if not sites:
        for column in (device_groups.c.group_name, group_settings.c.group_name):
            sizes = dict.fromkeys((await connection.execute(select(column))).scalars(), 0) | sizes
        sizes = {DEFAULT_PLACE: 0} | sizes
    return dict(sorted(sizes.items()))


def follows(wanted: GroupSettings, in_force: Mapping[str, float] | None) -> bool:
    """Return whether a device reports all settings that its group has; None: it runs an older agent."""
    return in_force is not None and wanted.given().items() <= in_force.items()


async def _versions(connection: AsyncConnection) -> dict[str, tuple[int, float]]:
    """Return number and time of the newest change of each group."""
    newest = select(func.max(group_changes.c.number)).group_by(group_changes.c.group_name)
    columns = (group_changes.c.group_name, group_changes.c.number, group_changes.c.at_s)
    rows = await connection.execute(select(*columns).where(group_changes.c.number.in_(newest)))
    return {name: (number, at_s) for name, number, at_s in rows}


async def _checked_version(connection: AsyncConnection, group: str, wanted: int | None) -> int:
    """Return the version of a group; raises GroupChangedError if another one is wanted."""
    newest = await version_of(connection, group)
    if wanted is not None and wanted != newest:
        raise GroupChangedError(f"The settings of {group} have been changed meanwhile: look at them again.")
    return newest


async def version_of(connection: AsyncConnection, group: str) -> int:
    """Return the number of the newest change of a group, 0 before the first one."""
    newest = select(func.max(group_changes.c.number)).where(group_changes.c.group_name == group)
    return int((await connection.execute(newest)).scalar_one() or 0)


async def _write(
    connection: AsyncConnection,
    group: str,
    before: GroupSettings,
    after: GroupSettings,
    facts: ChangeFacts,
    default_actor: str,
) -> int:
    """Write a change with its entries in history and audit log; return its number."""
    now_s, actor = time.time(), facts.actor or default_actor
    await connection.execute(delete(group_settings).where(group_settings.c.group_name == group))
    if after.given():
        values = {"group_name": group, "settings": after.given(), "changed_at_s": now_s}
        await connection.execute(insert(group_settings).values(values))
    details = {"before": before.given(), "after": after.given()}
    forecast = dict(facts.forecast) if facts.forecast is not None else None
    row = {"group_name": group, "at_s": now_s, "actor": actor[:128], "forecast": forecast, "undoes": facts.undoes}
    written = insert(group_changes).values(row | details).returning(group_changes.c.number)
    number = int((await connection.execute(written)).scalar_one())
    kept = (
        select(group_changes.c.number)
        .where(group_changes.c.group_name == group)
        .order_by(group_changes.c.number.desc())
        .offset(KEPT_CHANGES)
        .limit(1)
    )
    oldest = (await connection.execute(kept)).scalar_one_or_none()
    if oldest is not None:
        of_group = (group_changes.c.group_name == group, group_changes.c.number <= oldest)
        await connection.execute(delete(group_changes).where(*of_group))
    await audit.record(connection, actor, audit.AuditAction.GROUP_SETTINGS, group, **details)
    return number


def _change(row: dict[str, Any]) -> GroupChange:
    before, after = (GroupSettings.model_validate(row[name]) for name in ("before", "after"))
    names = ("number", "at_s", "actor", "forecast", "outcome", "undoes")
    return GroupChange(group=row["group_name"], before=before, after=after, **{name: row[name] for name in names})
