"""Upkeep of segments: remove those without places, merge small ones, rewrite those with little left.

Retention and removals delete rows; the bytes leave the disk here. A segment is removed only if no row has a place in
it, and only after the transaction that it was written for has ended. Values move by writing a new segment first; the
old one goes when no row has a place in it any more. So a process that dies in between leaves no row without its bytes.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Table, bindparam, delete, func, select, update

from cloud.store.engine import Store
from cloud.store.ingest import MAX_PARAMETERS, slices
from cloud.store.objects import Objects
from cloud.store.schema import anomaly_maps, dirty_segments, inbox, payloads
from cloud.store.segment_holds import HOLDS, are_held
from cloud.store.segments import (
    MOST_SEGMENT_BYTES,
    PLACE_COLUMNS,
    SETTLED_S,
    LostValue,
    SegmentPlace,
    SegmentValue,
    Values,
    place_of,
    segment_name,
    segment_of,
    written_at_s,
)
from cloud.store.upsert import insert_new
from shared.pacing import Pace

ORPHAN_S = 3600.0  # age from which a segment without places is removed
RECENT_S = 4 * 3600.0  # age of the segments that every run looks at
SMALL_BYTES = 2**20  # smaller segments are merged
LEAST_MERGED = 8  # small segments, so that a value moves a few times at most
SPARSE_SHARE = 0.5
STEP_S, PAUSE_S = 0.05, 0.05
FIRST_ROWS, MOST_ROWS = 16, 500
_TABLES = (payloads, anomaly_maps)


@dataclass(slots=True)
class Tended:
    """Numbers of segments that a run has removed and rewritten."""

    removed: int = 0
    rewritten: int = 0


@dataclass(slots=True)
class _Candidates:
    """Segments to be rewritten together; `live_bytes` of them have places."""

    segment_ids: list[bytes] = field(default_factory=list)
    live_bytes: int = 0
    has_sparse: bool = False

    def add(self, segment_id: bytes, live_bytes: int, size: int) -> None:
        self.segment_ids.append(segment_id)
        self.live_bytes += live_bytes
        self.has_sparse = self.has_sparse or size - live_bytes >= SMALL_BYTES

    def have_room(self, live_bytes: int) -> bool:
        """Return whether another segment can be rewritten with them."""
        return self.live_bytes + live_bytes <= MOST_SEGMENT_BYTES and len(self.segment_ids) < MAX_PARAMETERS

    @property
    def are_enough(self) -> bool:
        """Whether rewriting them is worth it."""
        return self.has_sparse or len(self.segment_ids) >= LEAST_MERGED


async def tend_segments(store: Store, *, everything: bool, orphan_s: float = ORPHAN_S) -> Tended:
    """Look at the recent segments, or at every one; bounded by the segments of one hour in memory.

    With `everything` bytes without a row leave their segment even if most of it is left. Raises StorageError.
    """
    tended, objects = Tended(), await store.segments.existing()
    if objects is None or not await asyncio.to_thread(objects.exist):  # nothing was written yet
        return tended
    await clean_dirty(store)
    since = f"{datetime.fromtimestamp(time.time() - RECENT_S, UTC):%Y-%m-%dT%H}"
    candidates = _Candidates()
    for folder in await asyncio.to_thread(objects.folders):
        if folder != HOLDS and (everything or folder >= since):
            candidates = await _tend_folder(store, objects, folder, candidates, tended, (everything, orphan_s))
    if candidates.are_enough:
        await _rewrite(store, candidates.segment_ids, tended)
    return tended


async def _tend_folder(
    store: Store,
    objects: Objects,
    folder: str,
    candidates: _Candidates,
    tended: Tended,
    rules: tuple[bool, float],
) -> _Candidates:
    """Tend the segments of one folder; return the candidates that are not enough yet.

    `rules`: whether each byte without a row shall go, and the age from which segments without places are removed.
    """
    everything, orphan_s = rules
    names = (await asyncio.to_thread(objects.sizes, folder)).items()
    sizes = {segment_id: size for name, size in names if (segment_id := segment_of(name)) is not None}
    settled = sorted(segment_id for segment_id in sizes if time.time() - written_at_s(segment_id) >= orphan_s)
    for some in slices(settled):
        live = await _live_bytes(store, some)
        tended.removed += await _remove(store, [segment_id for segment_id in some if segment_id not in live])
        for segment_id, live_bytes in live.items():
            if live_bytes is None:
                continue
            has_dead = everything and live_bytes < sizes[segment_id]
            if not has_dead and not _is_worth_rewriting(live_bytes, sizes[segment_id]):
                continue
            if candidates.segment_ids and not candidates.have_room(live_bytes):
                await _rewrite(store, candidates.segment_ids, tended)
                candidates = _Candidates()
            candidates.add(segment_id, live_bytes, sizes[segment_id])
            candidates.has_sparse = candidates.has_sparse or has_dead
    return candidates


def _is_worth_rewriting(live_bytes: int, size: int) -> bool:
    return size < SMALL_BYTES or live_bytes < SPARSE_SHARE * size


async def clean_dirty(store: Store, settled_s: float = SETTLED_S) -> bool:
    """Rewrite the segments with bytes of removed devices, without these; return whether none is left.

    Segments younger than `settled_s`, those with requests in the inbox, and those with values of others that cannot be
    read now stay for a later run. Raises StorageError.
    """
    async with store.reading() as connection:
        marked = list((await connection.execute(select(dirty_segments.c.segment_id))).scalars())
    done, tended = list[bytes](), Tended()
    for segment_id in [each for each in marked if time.time() - written_at_s(each) >= settled_s]:
        live = await _live_bytes(store, [segment_id])
        if live.get(segment_id, 0) is None:
            continue
        if segment_id in live:  # values with a place afterwards are gone
            await _rewrite(store, [segment_id], tended)
        if segment_id in store.segments.unreadable:
            continue
        if not await _remove(store, [segment_id]):
            continue
        done.append(segment_id)
        async with store.writing() as connection:
            await connection.execute(delete(dirty_segments).where(dirty_segments.c.segment_id == segment_id))
    return len(done) == len(marked)


async def _live_bytes(store: Store, segment_ids: Sequence[bytes]) -> dict[bytes, int | None]:
    """Return the bytes with places in each segment that has some; None if requests of the inbox are among them."""
    found = dict[bytes, int | None]()
    async with store.reading() as connection:
        for table in _TABLES:
            query = select(table.c.segment_id, func.sum(table.c.segment_bytes))
            query = query.where(table.c.segment_id.in_(segment_ids)).group_by(table.c.segment_id)
            for segment_id, size in await connection.execute(query):
                found[segment_id] = (found.get(segment_id) or 0) + int(size)
        waiting = select(inbox.c.segment_id).where(inbox.c.segment_id.in_(segment_ids)).distinct()
        found |= dict.fromkeys((await connection.execute(waiting)).scalars())
    return found


async def _remove(store: Store, segment_ids: Sequence[bytes]) -> int:
    """Remove segments without places, unless a backup is being made; return their number.

    The rows that named them may have been deleted without waiting for the disk, so one durable commit comes first:
    after a power cut no row names a segment that is gone.
    """
    if not segment_ids:
        return 0
    async with store.writing() as connection:
        await store.make_durable(connection)
    objects = await store.segments.objects()
    if await asyncio.to_thread(are_held, objects):
        return 0
    await asyncio.to_thread(objects.remove, [segment_name(segment_id) for segment_id in segment_ids])
    for segment_id in segment_ids:
        store.segments.unreadable.pop(segment_id, None)
    return len(segment_ids)


async def _rewrite(store: Store, segment_ids: Sequence[bytes], tended: Tended) -> None:
    """Move all values of some segments into a new one, and remove those that hold none any more.

    A value that cannot be read keeps its place. `Segments.unreadable` counts those that a later run may read.
    """
    found = await _places(store, segment_ids)
    values = await store.segments.read([place for _, _, place in found])
    _note_unreadable(store, segment_ids, values)
    moved = [(table, number, place, data) for table, number, place in found if isinstance(data := values[place], bytes)]
    if moved:
        new = await store.segments.write([SegmentValue(data, place.crc32) for *_, place, data in moved])
        changes = [(table, number, old, to) for (table, number, old, _), to in zip(moved, new, strict=True)]
        await _store_places(store, changes)
        await _mark_if_rows_went(store, new)
    left = await _live_bytes(store, segment_ids)
    tended.rewritten += await _remove(store, [segment_id for segment_id in segment_ids if segment_id not in left])


def _note_unreadable(store: Store, segment_ids: Sequence[bytes], values: Values) -> None:
    for segment_id in segment_ids:
        store.segments.unreadable.pop(segment_id, None)
    for place, value in values.items():
        if isinstance(value, LostValue) and not value.is_gone:
            store.segments.unreadable[place.segment_id] = 1 + store.segments.unreadable.get(place.segment_id, 0)


async def _mark_if_rows_went(store: Store, new: Sequence[SegmentPlace]) -> None:
    """Mark a new segment as dirty if rows of its values were deleted, or changed, while it was written."""
    live = await _live_bytes(store, [new[0].segment_id])
    if live.get(new[0].segment_id) != sum(place.size for place in new):
        async with store.writing() as connection:
            await insert_new(connection, dirty_segments, {"segment_id": new[0].segment_id})


async def _places(store: Store, segment_ids: Sequence[bytes]) -> list[tuple[Table, int, SegmentPlace]]:
    """Return all places in these segments: table and number of their rows."""
    found = list[tuple[Table, int, SegmentPlace]]()
    async with store.reading() as connection:
        for table in _TABLES:
            columns = (table.c.number, *(table.c[name] for name in PLACE_COLUMNS))
            for row in (
                await connection.execute(select(*columns).where(table.c.segment_id.in_(segment_ids)))
            ).mappings():
                place = place_of(row)
                assert place is not None
                found.append((table, row["number"], place))
    return sorted(found, key=lambda item: item[2])


async def _store_places(store: Store, changes: Sequence[tuple[Table, int, SegmentPlace, SegmentPlace]]) -> None:
    """Change places in small transactions; a row whose place has changed meanwhile keeps the other one."""
    pace, place = Pace(STEP_S, FIRST_ROWS, MOST_ROWS), 0
    while place < len(changes):
        some = changes[place : place + pace.size]
        place += len(some)
        async with store.writing() as connection:
            started_s = time.perf_counter()
            for table in _TABLES:
                if rows := list(_parameters(table, some)):
                    await connection.execute(_change(table), rows)
        pace.measured(time.perf_counter() - started_s)
        await asyncio.sleep(PAUSE_S if place < len(changes) else 0)


def _change(table: Table) -> Any:
    new: dict[str, Any] = {name: bindparam(f"new_{name}") for name in PLACE_COLUMNS}
    is_same = table.c.segment_id == bindparam("old_segment_id"), table.c.segment_start == bindparam("old_segment_start")
    return update(table).where(table.c.number == bindparam("row_number"), *is_same).values(new)


def _parameters(
    table: Table, changes: Sequence[tuple[Table, int, SegmentPlace, SegmentPlace]]
) -> Iterator[dict[str, Any]]:
    for of, number, old, to in changes:
        if of is table:
            new = {f"new_{name}": value for name, value in zip(PLACE_COLUMNS, to, strict=True)}
            yield {"row_number": number, "old_segment_id": old.segment_id, "old_segment_start": old.start, **new}
