"""Moves of many devices between sites and groups in one transaction, and their undoing."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store import audit
from cloud.store.engine import Store
from cloud.store.fleet import Place
from cloud.store.fleet_list import FleetQuery, matching_ids
from cloud.store.ingest import slices
from cloud.store.schema import device_moves, devices
from cloud.store.sites import of_sites
from shared.errors import DataError

MAX_MOVED = 5000
KEPT_MOVES = 100


class UnknownDevicesError(DataError):
    """Devices of a move that are not enrolled, or not of the sites of the account."""


class MatchesChangedError(DataError):
    """Another number of devices matches than the caller has seen."""


@dataclass(frozen=True, slots=True)
class Move:
    """A stored move; `moved` are the devices that were elsewhere before, `skipped` those that an undo left alone."""

    number: int
    moved: tuple[str, ...]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Matching:
    """All devices that match a query; `expected` is their number as the caller has seen it."""

    query: FleetQuery
    silent_since_s: float
    expected: int


@dataclass(frozen=True, slots=True)
class Mover:
    """Author of a move; with `sites` only devices of these are moved."""

    actor: str
    sites: tuple[str, ...] = ()


async def move_devices(store: Store, which: Sequence[str] | Matching, place: Place, mover: Mover) -> Move:
    """Move devices to a site, a group or both; those that are there already do not count as moved.

    Raises UnknownDevicesError, MatchesChangedError, and DataError for more than MAX_MOVED devices.
    """
    async with store.writing() as connection:
        ids = await _matching(connection, which, mover) if isinstance(which, Matching) else list(dict.fromkeys(which))
        if len(ids) > MAX_MOVED:
            raise DataError(f"{len(ids)} devices are more than the {MAX_MOVED} of one move: move a part of them.")
        before = await _places(connection, ids, mover.sites)
        if missing := sorted(set(ids) - before.keys()):
            named = ", ".join(name[:64] for name in missing[:5])
            raise UnknownDevicesError(f"Not enrolled here, or of another site: {named}.")
        to = (place.site, place.group)
        moving = [
            name for name in ids if any(new not in (None, old) for new, old in zip(to, before[name], strict=True))
        ]
        await _set(connection, moving, place.columns())
        rows = [[name, *before[name]] for name in moving]
        values = {"at_s": time.time(), "actor": mover.actor[:128], "devices": rows, "site": place.site}
        adding = insert(device_moves).values(group_name=place.group, **values).returning(device_moves.c.number)
        number = int((await connection.execute(adding)).scalar_one())
        await connection.execute(delete(device_moves).where(device_moves.c.number <= number - KEPT_MOVES))
        await _record(connection, mover.actor, [(name, place.columns() | {"move": number}) for name in moving])
    return Move(number, tuple(moving))


async def undo_move(store: Store, number: int, mover: Mover) -> Move | None:
    """Take devices back to where they were before a move; return None for an unknown or undone one.

    Devices that somebody has moved since, removed ones, and those of other sites stay where they are. The latter can
    still be taken back: the move counts as undone once no device was left alone because of its site.
    """
    async with store.writing() as connection:
        row = (await connection.execute(select(device_moves).where(device_moves.c.number == number))).one_or_none()
        if row is None or row.undone_at_s is not None:
            return None
        now = await _places(connection, [name for name, *_ in row.devices], ())
        own = await _places(connection, list(now), mover.sites) if mover.sites else now
        target = (row.site, row.group_name)
        back: dict[tuple[str, str], list[str]] = {}
        is_whole = True
        for name, site, group in row.devices:
            stays = name in now and all(new in (None, at) for new, at in zip(target, now[name], strict=True))
            if stays and name in own and (not mover.sites or site in mover.sites):
                back.setdefault((site, group), []).append(name)
            elif stays:
                is_whole = False
        if mover.sites and not back:
            return None
        for (site, group), names in back.items():
            place = Place(site if row.site else None, group if row.group_name else None).columns()
            await _set(connection, names, place)
            await _record(connection, mover.actor, [(name, place | {"undoes": number}) for name in names])
        if is_whole:
            undone = update(device_moves).where(device_moves.c.number == number)
            await connection.execute(undone.values(undone_at_s=time.time()))
    moved = tuple(sorted(name for names in back.values() for name in names))
    return Move(number, moved, tuple(sorted({name for name, *_ in row.devices} - set(moved))))


async def rename_in_moves(connection: AsyncConnection, group: str, new_group: str) -> None:
    """Rename a group in the moves that can be undone, in the transaction of the change."""
    moves = device_moves.c
    for row in (await connection.execute(select(moves.number, moves.group_name, moves.devices))).all():
        to = new_group if row.group_name == group else row.group_name
        before = [[name, site, new_group if at == group else at] for name, site, at in row.devices]
        if to != row.group_name or before != row.devices:
            changed = update(device_moves).where(moves.number == row.number)
            await connection.execute(changed.values(group_name=to, devices=before))


async def _matching(connection: AsyncConnection, which: Matching, mover: Mover) -> list[str]:
    ids = await matching_ids(
        connection, which.query, silent_since_s=which.silent_since_s, sites=mover.sites, limit=MAX_MOVED + 1
    )
    if len(ids) <= MAX_MOVED and len(ids) != which.expected:
        raise MatchesChangedError(
            f"{len(ids)} devices match now, not {which.expected}: look at the list again before you move them."
        )
    return ids


async def _places(
    connection: AsyncConnection, ids: Sequence[str], sites: Collection[str]
) -> dict[str, tuple[str, str]]:
    """Return site and group of those of the devices that are listed for these sites."""
    found: dict[str, tuple[str, str]] = {}
    for part in slices(list(ids)):
        query = select(devices.c.device_id, devices.c.site, devices.c.group_name).where(
            devices.c.device_id.in_(part), devices.c.removed_at_s.is_(None), *of_sites(sites)
        )
        found |= {name: (site, group) for name, site, group in await connection.execute(query)}
    return found


async def _set(connection: AsyncConnection, ids: Sequence[str], place: dict[str, str]) -> None:
    for part in slices(list(ids)):
        await connection.execute(update(devices).where(devices.c.device_id.in_(part)).values(place))


async def _record(connection: AsyncConnection, actor: str, changes: list[tuple[str, dict[str, Any]]]) -> None:
    if changes:
        await audit.record_all(connection, actor, audit.AuditAction.DEVICE_PLACED, changes)
