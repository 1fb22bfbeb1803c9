"""Builder of review items: follows the verdicts, and resumes where it was stopped.

It runs outside the transaction of a verdict, in one process. Each step is one transaction with its place in the
verdicts; a verdict is a member of one item, so a step that is repeated adds nothing. Verdicts of the last SETTLED_S are
read again with each run: one that was stored late, before others in the order of judgement, is not skipped.
"""

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.engine import Store
from cloud.store.review.asking import SidesOf, asking_keys, with_signatures, without_item
from cloud.store.review.grouping import GAP_S, MAX_ITEM_S, Asking, Group, find_group, join, new_group
from cloud.store.review.muting import MuteIndex, MuteReader
from cloud.store.review.progress import raise_version, read_progress, write_progress
from cloud.store.review.severity import Severity
from cloud.store.schema import devices, mutes, review_items, review_marks, review_members, review_signatures
from cloud.store.upsert import upsert
from cloud.store.verdict_keys import VerdictKey

SETTLED_S = 10.0
STEP = 100  # verdicts of one transaction
_ITEM_COLUMNS = tuple(column.name for column in review_items.c)


@dataclass(slots=True)
class BuildCounts:
    """Verdicts that one run has put into items, the items that are new, and the verdicts that mutes hide."""

    verdicts: int = 0
    items: int = 0
    hidden: int = 0


async def build_items(
    store: Store,
    with_place: Collection[str] = (),
    *,
    with_map: Collection[str] = (),
    sides_of: SidesOf | None = None,
    mute_reader: MuteReader | None = None,
    now_s: float | None = None,
) -> BuildCounts:
    """Put every verdict that asks for a person into an item, hidden if a mute has its pattern. Raises StorageError.

    `with_place`: modalities whose items are also told apart by the place of the anomaly map's largest value;
    `with_map`: those whose signature is their map. `mute_reader` keeps the active mutes between two runs.
    """
    now_s, mute_reader = time.time() if now_s is None else now_s, mute_reader or MuteReader()
    settled_s = now_s - SETTLED_S
    counts = BuildCounts()
    place: VerdictKey | None = None
    while True:
        async with store.reading() as connection:
            judged_at_s, number, _ = await read_progress(connection)
            stored = VerdictKey(judged_at_s, number)
            keys = await asking_keys(connection, place or stored, STEP)
            asking = await without_item(connection, keys) if keys else []
        asking = await with_signatures(store, asking, with_place=with_place, with_map=with_map, sides_of=sides_of)
        settled = [key for key in keys if key.judged_at_s < settled_s]
        if asking or settled:
            await _step(store, stored, settled[-1] if settled else stored, asking, counts, mute_reader)
        if len(keys) < STEP:
            return counts
        place = keys[-1]


async def _step(
    store: Store,
    before: VerdictKey,
    after: VerdictKey,
    asking: Sequence[Asking],
    counts: BuildCounts,
    mute_reader: MuteReader,
) -> None:
    """Store the items of these verdicts and the place behind them, unless another process has moved it."""
    async with store.writing() as connection:
        judged_at_s, number, last_item = await read_progress(connection)
        if (judged_at_s, number) != (before.judged_at_s, before.number):
            return
        if asking:
            asking = await _muted(connection, asking, await mute_reader.active(connection, time.time()))
        groups = await _grouped(connection, asking, last_item)
        await _write(connection, groups)
        new = sum(group.is_new for group in groups)
        await write_progress(connection, after.judged_at_s, after.number, last_item + new)
        if groups:
            await raise_version(connection)
    counts.verdicts += len(asking)
    counts.items += new
    counts.hidden += sum(item.muted_by is not None for item in asking)


async def _muted(connection: AsyncConnection, asking: Sequence[Asking], active: MuteIndex) -> Sequence[Asking]:
    """Return the verdicts, each with the mute that hides it."""
    if not len(active):
        return asking
    query = select(devices.c.device_id, devices.c.site).where(devices.c.device_id.in_({e.device_id for e in asking}))
    sites: dict[str, str] = {row.device_id: row.site for row in await connection.execute(query)}
    return [replace(item, muted_by=active.find(item, sites.get(item.device_id, ""))) for item in asking]


async def _grouped(connection: AsyncConnection, asking: Sequence[Asking], last_item: int) -> list[Group]:
    """Return the items that these verdicts have changed or begun."""
    by_source: dict[tuple[str, str], list[Asking]] = defaultdict(list)
    for item in asking:
        by_source[item.device_id, item.source_id].append(item)
    known = {source: await _near(connection, *source, items) for source, items in by_source.items()}
    for item in asking:  # in the order of judgement, so that numbers of items follow it
        groups = known[item.device_id, item.source_id]
        if (group := find_group(groups, item)) is not None:
            join(group, item)
        else:
            last_item += 1
            groups.append(new_group(last_item, item))
    return [group for groups in known.values() for group in groups if group.members]


async def _near(connection: AsyncConnection, device_id: str, source_id: str, asking: Iterable[Asking]) -> list[Group]:
    """Return the items of a source that these verdicts may join; one index range."""
    moments = [item.at_s for item in asking]
    last_at_s = review_items.c.last_at_s
    query = select(review_items).where(
        review_items.c.device_id == device_id,
        review_items.c.source_id == source_id,
        last_at_s.between(min(moments) - GAP_S, max(moments) + GAP_S + MAX_ITEM_S),
    )
    rows = (await connection.execute(query)).mappings()
    return [
        Group(
            **{name: row[name] for name in _SHARED},
            severity=Severity(row["severity"]),
            place=None if row["place_row"] is None else (row["place_row"], row["place_column"]),
            is_decided=row["decision_number"] != 0,
            is_new=False,
            is_raised=False,
            members=[],
        )
        for row in rows
    ]


_SHARED = tuple(
    name
    for name in _ITEM_COLUMNS
    if name not in ("severity", "place_row", "place_column", "decision", "decision_number", "defect_class")
)
_CHANGING = (
    "severity",
    "first_at_s",
    "last_at_s",
    "last_judged_at_s",
    "verdicts",
    "p_value",
    "cover",
    "origin",
    "place_row",
    "place_column",
)


async def _write(connection: AsyncConnection, groups: Sequence[Group]) -> None:
    if new := [_row(group) for group in groups if group.is_new]:
        await connection.execute(insert(review_items), new)
    if known := [{"item": group.number, **_changes(group)} for group in groups if not group.is_new]:
        changes: dict[str, Any] = {name: bindparam(name) for name in _CHANGING}
        await connection.execute(
            update(review_items).where(review_items.c.number == bindparam("item")).values(changes), known
        )
    members = [{"number": number, "item": group.number} for group in groups for number in group.members]
    if members:
        await connection.execute(insert(review_members), members)
    covers = [group for group in groups if group.has_new_cover]
    without = [group.number for group in covers if group.signature is None and not group.is_new]
    if without:
        await connection.execute(delete(review_signatures).where(review_signatures.c.item.in_(without)))
    await upsert(connection, review_signatures, [_signature_row(group) for group in covers if group.signature])
    await _count_hidden(connection, groups)
    if raised := [group.number for group in groups if group.is_raised]:  # an alarm has not been reviewed yet
        await connection.execute(delete(review_marks).where(review_marks.c.item.in_(raised)))


async def _count_hidden(connection: AsyncConnection, groups: Sequence[Group]) -> None:
    """Add to the counts of the mutes what they hide now."""
    counts: dict[int, tuple[int, int]] = {}
    for group in groups:
        if group.hidden_by is not None:
            items, verdicts = counts.get(group.hidden_by, (0, 0))
            counts[group.hidden_by] = (items + group.is_new, verdicts + len(group.members))
    for number, (items, verdicts) in counts.items():
        more = {"hidden_items": mutes.c.hidden_items + items, "hidden_verdicts": mutes.c.hidden_verdicts + verdicts}
        await connection.execute(update(mutes).where(mutes.c.number == number).values(more))


def _signature_row(group: Group) -> dict[str, object]:
    signature = group.signature
    assert signature is not None
    return {
        "item": group.number,
        "bundle_name": signature.bundle_name,
        "version": signature.version,
        "vector": dict(signature.vector),
    }


def _row(group: Group) -> dict[str, object]:
    row, column = group.place or (None, None)
    values = {name: getattr(group, name) for name in _SHARED}
    return values | {
        "severity": group.severity.value,
        "place_row": row,
        "place_column": column,
        "decision": None,
        "decision_number": 0,
        "defect_class": None,
    }


def _changes(group: Group) -> dict[str, object]:
    return {name: value for name, value in _row(group).items() if name in _CHANGING}
