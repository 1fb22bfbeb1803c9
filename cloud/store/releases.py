"""Desired state of each device: the bundles that it should run, and the settings of its group.

The bundles are the current ones of the names that are released to its group, and the new one of a rollout whose stages
include the device.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store import audit
from cloud.store.engine import Store
from cloud.store.events import BundleChange, add_bundle_change
from cloud.store.group_settings import settings_by_group
from cloud.store.registry import RegisteredBundle, current_bundles, entry_of, set_current
from cloud.store.rollouts import StagedRollout, active_rollouts
from cloud.store.schema import DEFAULT_PLACE, audit_log, bundle_groups, bundles, devices, rollouts
from shared.errors import BundleError
from shared.group_settings import GroupSettings


@dataclass(frozen=True, slots=True)
class WantedBundles:
    """Wanted bundles of all devices, from one view of the store.

    `groups` of a name that is for all are missing; `staged` holds the rollout of each name that has one under way, and
    its bundle. `settings` are those of the groups that have some.
    """

    current: Mapping[str, RegisteredBundle]
    groups: Mapping[str, Collection[str]]
    staged: Mapping[str, tuple[StagedRollout, RegisteredBundle]]
    settings: Mapping[str, GroupSettings]

    def of(self, device_id: str, group: str) -> dict[str, RegisteredBundle]:
        """Return the bundle of each name that a device of this group should run."""
        wanted = {
            name: bundle
            for name, bundle in self.current.items()
            if name not in self.groups or group in self.groups[name]
        }
        for name, (rollout, bundle) in self.staged.items():
            if name in wanted and rollout.includes(device_id):
                wanted[name] = bundle
        return wanted


async def wanted_by_device(connection: AsyncConnection) -> WantedBundles:
    """Return the wanted bundles of all devices."""
    current = {bundle.name: bundle for bundle in await current_bundles(connection)}
    staged: dict[str, tuple[StagedRollout, RegisteredBundle]] = {}
    for rollout in await active_rollouts(connection):
        bundle = await entry_of(connection, rollout.bundle_id)
        if bundle is not None:
            staged[rollout.bundle_name] = (rollout, bundle)
    return WantedBundles(current, await groups_by_name(connection), staged, await settings_by_group(connection))


class Releases:
    """Desired state of all devices, kept in memory until something in the store changes.

    Every change of it has an entry in the audit log, so the number of the newest entry says whether it is still right.
    A heartbeat then costs one statement.
    """

    def __init__(self) -> None:
        self._known: tuple[int, WantedBundles] | None = None

    async def wanted(self, connection: AsyncConnection, device_id: str) -> tuple[list[RegisteredBundle], GroupSettings]:
        """Return the bundles that one device should run, ordered by name, and the settings of its group."""
        group, wanted = await self._read(connection, device_id)
        return list(wanted.of(device_id, group).values()), wanted.settings.get(group, GroupSettings())

    async def may_fetch(self, connection: AsyncConnection, device_id: str, bundle: RegisteredBundle) -> bool:
        """Return whether a device may fetch a bundle.

        It should run it, or the bundle was the current one of a name that is released to the group of the device.
        """
        group, wanted = await self._read(connection, device_id)
        if bundle in wanted.of(device_id, group).values():
            return True
        was_current = select(rollouts.c.number).where(rollouts.c.bundle_id == bundle.bundle_id).limit(1)
        if (await connection.execute(was_current)).one_or_none() is None:
            return False
        return bundle.name not in wanted.groups or group in wanted.groups[bundle.name]

    async def _read(self, connection: AsyncConnection, device_id: str) -> tuple[str, WantedBundles]:
        newest = select(func.coalesce(func.max(audit_log.c.number), 0)).scalar_subquery()
        group = select(devices.c.group_name).where(devices.c.device_id == device_id).scalar_subquery()
        number, group_name = (await connection.execute(select(newest, group))).one()
        known = self._known
        if known is None or known[0] != number:
            known = self._known = (number, await wanted_by_device(connection))
        return group_name or DEFAULT_PLACE, known[1]


async def groups_by_name(connection: AsyncConnection) -> dict[str, set[str]]:
    """Return the groups that each restricted name is released to."""
    groups: dict[str, set[str]] = {}
    for name, group in await connection.execute(select(bundle_groups.c.bundle_name, bundle_groups.c.group_name)):
        groups.setdefault(name, set()).add(group)
    return groups


async def release(
    store: Store,
    name: str,
    groups: Collection[str] | None,
    at_s: float,
    *,
    actor: str | None = None,
    current: str = "",
) -> None:
    """Release the bundles of a name to some groups, or to all if none is given; devices are told to ask again.

    `groups`: None leaves them as they are. `current`: bundle that becomes the current one of the name in the same
    transaction; the caller has verified it.

    Raises BundleError for a name without any bundle or an unknown bundle, RolloutError while a rollout of the name is
    under way and `current` is given.
    """
    by = actor or store.actor
    async with store.writing() as connection:
        known = (await connection.execute(select(bundles.c.bundle_id).where(bundles.c.name == name))).scalars().all()
        if not known:
            raise BundleError(f"No bundle named {name!r} in the registry: add one with vedette cloud publish.")
        if current and current not in known:
            raise BundleError(f"{current!r} is not a bundle named {name!r} in the registry: publish it first.")
        if groups is not None:
            await _set_groups(connection, by, name, groups, at_s)
        if current and current not in {bundle.bundle_id for bundle in await current_bundles(connection)}:
            await set_current(connection, by, name, current)


async def _set_groups(connection: AsyncConnection, by: str, name: str, groups: Collection[str], at_s: float) -> None:
    await connection.execute(delete(bundle_groups).where(bundle_groups.c.bundle_name == name))
    if groups:
        rows = [{"bundle_name": name, "group_name": group} for group in sorted(set(groups))]
        await connection.execute(insert(bundle_groups), rows)
    for bundle in await current_bundles(connection):
        if bundle.name == name:
            await add_bundle_change(connection, BundleChange(name, bundle.bundle_id), at_s)
    details = {"groups": sorted(set(groups)) or "all"}
    await audit.record(connection, by, audit.AuditAction.BUNDLE_RELEASED, name, **details)
