"""Comparison of the rows with the segments that they name, for `vedette cloud doctor`.

It looks at a bounded sample, or at all. Rows move and go while it reads, so each finding is looked at twice.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Table, func, select

from cloud.store.engine import Store
from cloud.store.ingest import slices
from cloud.store.objects import Objects
from cloud.store.schema import anomaly_maps, dirty_segments, inbox, payloads
from cloud.store.segment_holds import HOLDS
from cloud.store.segment_upkeep import ORPHAN_S
from cloud.store.segments import (
    PLACE_COLUMNS,
    LostValue,
    SegmentPlace,
    place_of,
    places_from_bytes,
    segment_name,
    segment_of,
    written_at_s,
)

SAMPLED_SEGMENTS, SAMPLED_FOLDERS = 100, 20  # without `everything`
PAGE = 500
MOST_READ = 100  # values of a segment that are read
_PLACED = (payloads, anomaly_maps)
_TABLES = (*_PLACED, inbox)


@dataclass(slots=True)
class SegmentFault:
    """Segments with a fault, the values or bytes that it concerns, and the name of the first segment."""

    segments: int = 0
    amount: int = 0
    first: str = ""

    def add(self, segment_id: bytes, amount: int) -> None:
        """Count one segment."""
        self.segments += 1
        self.amount += amount
        self.first = self.first or segment_name(segment_id)


@dataclass(slots=True)
class SegmentAudit:
    """Number of examined segments and folders, and their faults.

    Findings count values in `amount`, but `orphans` bytes: no row names these although they are older than `orphan_s`.
    `dirty` segments hold bytes of removed devices. `faulty` are those that are missing or short.
    """

    segments: int = 0
    folders: int = 0
    missing: SegmentFault = field(default_factory=SegmentFault)
    short: SegmentFault = field(default_factory=SegmentFault)
    damaged: SegmentFault = field(default_factory=SegmentFault)
    unreadable: SegmentFault = field(default_factory=SegmentFault)
    orphans: SegmentFault = field(default_factory=SegmentFault)
    dirty: int = 0
    faulty: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class _Extent:
    """Values that rows place in a segment, and the bytes that it must have."""

    values: int = 0
    size: int = 0

    def add(self, values: int, size: int) -> None:
        self.values += values
        self.size = max(self.size, size)


async def audit_segments(
    store: Store, *, everything: bool, chance: random.Random, orphan_s: float = ORPHAN_S
) -> SegmentAudit:
    """Compare rows and segments; raises StorageError if the database or the payload store cannot be read."""
    audit, objects = SegmentAudit(), await store.segments.objects()
    async for segment_ids in _every_id(store) if everything else _sampled_ids(store, chance):
        await _compare(store, objects, segment_ids, audit)
    folders = [name for name in await asyncio.to_thread(objects.folders) if name != HOLDS]
    if not everything and len(folders) > SAMPLED_FOLDERS:
        folders = chance.sample(folders, SAMPLED_FOLDERS)
    for folder in folders:
        await _find_orphans(store, objects, folder, audit, orphan_s)
    await _read_some(store, everything, chance, audit)
    return audit


async def _every_id(store: Store) -> AsyncIterator[Sequence[bytes]]:
    """Yield the ids of all segments with rows, a page at a time, in order."""
    after = b""
    while True:
        found = set[bytes]()
        async with store.reading() as connection:
            for table in _TABLES:
                column = table.c.segment_id
                query = select(column).where(column > after).distinct().order_by(column).limit(PAGE)
                found.update((await connection.execute(query)).scalars())
        page = sorted(found)[:PAGE]
        if not page:
            return
        yield page
        after = page[-1]


async def _sampled_ids(store: Store, chance: random.Random) -> AsyncIterator[Sequence[bytes]]:
    """Yield the ids of segments with rows at random times between the first and the last one, by their own clock."""
    found = set[bytes]()
    async with store.reading() as connection:
        for table in _TABLES:
            column = table.c.segment_id
            first = (await connection.execute(_first_from(table, b""))).scalar()
            if first is None:
                continue
            newest = select(column).where(column.is_not(None)).order_by(column.desc()).limit(1)
            last = (await connection.execute(newest)).scalar_one()
            start_ms, end_ms = (round(1000 * written_at_s(each)) for each in (first, last))
            for _ in range(SAMPLED_SEGMENTS // len(_TABLES)):
                point = chance.randint(start_ms, end_ms).to_bytes(6, "big")
                found.add((await connection.execute(_first_from(table, point))).scalar() or first)
            found |= {first, last}
    for some in slices(sorted(found)):
        yield some


def _first_from(table: Table, point: bytes) -> Any:
    column = table.c.segment_id
    return select(column).where(column >= point).order_by(column).limit(1)


async def _extents(store: Store, segment_ids: Sequence[bytes]) -> dict[bytes, _Extent]:
    """Return what the rows place in these segments, without those that have none."""
    found = dict[bytes, _Extent]()
    async with store.reading() as connection:
        for table in _PLACED:
            end = func.max(table.c.segment_start + table.c.segment_bytes)
            query = select(table.c.segment_id, func.count(), end).group_by(table.c.segment_id)
            for segment_id, values, size in await connection.execute(query.where(table.c.segment_id.in_(segment_ids))):
                found.setdefault(segment_id, _Extent()).add(values, int(size))
        waiting = select(inbox.c.segment_id, inbox.c.segment_places).where(inbox.c.segment_id.in_(segment_ids))
        for segment_id, places in await connection.execute(waiting):
            known = [place for place in places_from_bytes(segment_id, places) if place is not None]
            size = max((place.start + place.size for place in known), default=0)
            found.setdefault(segment_id, _Extent()).add(len(known), size)
    return found


async def _compare(store: Store, objects: Objects, segment_ids: Sequence[bytes], audit: SegmentAudit) -> None:
    """Find the segments that are missing or too short for their rows."""
    extents = await _extents(store, segment_ids)
    audit.segments += len(extents)
    suspects = [each for each, _, _ in await asyncio.to_thread(_faults, objects, extents)]
    if not suspects:
        return
    again = await _extents(store, suspects)  # without those that were rewritten meanwhile
    for segment_id, values, is_missing in await asyncio.to_thread(_faults, objects, again):
        (audit.missing if is_missing else audit.short).add(segment_id, values)
        audit.faulty.add(segment_id)


def _faults(objects: Objects, extents: dict[bytes, _Extent]) -> list[tuple[bytes, int, bool]]:
    """Return the segments with a fault, their values, and whether they are missing. Blocking."""
    sizes, folder, found = dict[str, int](), "", list[tuple[bytes, int, bool]]()
    for segment_id, extent in sorted(extents.items()):
        name = segment_name(segment_id)
        if folder != name.partition("/")[0]:
            folder = name.partition("/")[0]
            sizes = objects.sizes(folder)
        if sizes.get(name, -1) < extent.size:
            found.append((segment_id, extent.values, name not in sizes))
    return found


async def _find_orphans(store: Store, objects: Objects, folder: str, audit: SegmentAudit, orphan_s: float) -> None:
    """Find the segments of a folder that no row names, and that are old enough to be removed."""
    names = (await asyncio.to_thread(objects.sizes, folder)).items()
    sizes = {segment_id: size for name, size in names if (segment_id := segment_of(name)) is not None}
    old = sorted(each for each in sizes if time.time() - written_at_s(each) >= orphan_s)
    audit.folders += 1
    for some in slices(old):
        named = await _extents(store, some)
        for segment_id in some:
            if segment_id not in named:
                audit.orphans.add(segment_id, sizes[segment_id])


async def _read_some(store: Store, everything: bool, chance: random.Random, audit: SegmentAudit) -> None:
    """Read the values of segments that shall be rewritten, and one of each of some others, with their checksums."""
    async with store.reading() as connection:
        marked = list((await connection.execute(select(dirty_segments.c.segment_id))).scalars())
    audit.dirty = len(marked)
    chosen = dict.fromkeys(marked if everything else marked[:MOST_READ], MOST_READ)
    async for some in _sampled_ids(store, chance):
        chosen = dict.fromkeys(some, 1) | chosen
    for segment_id, count in chosen.items():
        values = await store.segments.read(await _places_of(store, segment_id, count))
        lost = [value.is_gone for value in values.values() if isinstance(value, LostValue)]
        if unreadable := lost.count(False):
            audit.unreadable.add(segment_id, unreadable)
        if (gone := lost.count(True)) and segment_id not in audit.faulty and await _extents(store, [segment_id]):
            audit.damaged.add(segment_id, gone)


async def _places_of(store: Store, segment_id: bytes, count: int) -> list[SegmentPlace]:
    found = list[SegmentPlace]()
    async with store.reading() as connection:
        for table in _PLACED:
            query = select(*(table.c[name] for name in PLACE_COLUMNS)).where(table.c.segment_id == segment_id)
            rows = (await connection.execute(query.limit(count - len(found)))).mappings()
            found += [place for row in rows if (place := place_of(row)) is not None]
            if len(found) == count:
                break
    return found
