"""Counts of review items: those left by tab, site and device, and the density over time."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from sqlalchemy import Integer, Select, cast, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.review.item_filter import IS_OPEN, ItemFilter, conditions
from cloud.store.review.severity import Severity
from cloud.store.schema import devices, review_items, review_marks
from shared.errors import DataError

MAX_BUCKETS = 5000
MAX_MUTED = 1000

OpenCounts: TypeAlias = Mapping[tuple[str, str], int]
"""Number of items by severity and device."""


@dataclass(frozen=True, slots=True)
class LeftCounts:
    """Items left to a person: by severity, and of the filter's severity by site and by device of its site.

    `muted` counts the items of the chosen site and device that mutes hide, up to MAX_MUTED.
    """

    by_severity: Mapping[Severity, int]
    by_site: Mapping[str, int]
    by_device: Mapping[str, int]
    muted: int = 0


@dataclass(frozen=True, slots=True)
class Bucket:
    """Number of items of a severity whose first capture is in the interval that begins at `at_s`."""

    at_s: float
    severity: Severity
    items: int


async def open_counts(connection: AsyncConnection, wanted: ItemFilter) -> OpenCounts:
    """Return the undecided items that match by severity and device, the same for all people."""
    return {(row[0], row[1]): int(row[2]) for row in await connection.execute(_open_items(wanted))}


async def left_counts(connection: AsyncConnection, wanted: ItemFilter, opened: OpenCounts | None = None) -> LeftCounts:
    """Return what is left to a person. Tabs count the chosen site and device, the lists each of them.

    `opened`: `open_counts` of the same filter, if they are known.
    """
    left = dict(await open_counts(connection, wanted) if opened is None else opened)
    marked = _open_items(wanted).join(review_marks, review_marks.c.item == review_items.c.number)
    for severity, device_id, count in await connection.execute(marked.where(review_marks.c.actor == wanted.actor)):
        left[severity, device_id] = max(0, left.get((severity, device_id), 0) - count)  # `opened` may be older
    of_device = select(devices.c.device_id, devices.c.site)
    sites: dict[str, str] = {row.device_id: row.site for row in await connection.execute(of_device)} if left else {}
    by_severity = dict.fromkeys(Severity, 0)
    by_site, by_device = dict[str, int](), dict[str, int]()
    for (severity, device_id), count in left.items():
        if not count:
            continue
        site = sites.get(device_id, "")
        is_of_site = not wanted.site or site == wanted.site
        if is_of_site and wanted.device_id in ("", device_id):
            by_severity[Severity(severity)] += count
        if wanted.severity in (None, severity):
            by_site[site] = by_site.get(site, 0) + count
            if is_of_site:
                by_device[device_id] = by_device.get(device_id, 0) + count
    return LeftCounts(by_severity, by_site, by_device, await _muted(connection, wanted))


async def _muted(connection: AsyncConnection, wanted: ItemFilter) -> int:
    """Return the number of hidden items of the chosen site and device, up to MAX_MUTED."""
    hidden = replace(wanted.anywhere(), site=wanted.site, device_id=wanted.device_id, is_muted=True)
    query = select(review_items.c.number).where(*conditions(hidden, with_state=False)).limit(MAX_MUTED)
    return int((await connection.execute(select(func.count()).select_from(query.subquery()))).scalar_one())


def _open_items(wanted: ItemFilter) -> Select[Any]:
    kind = (review_items.c.severity, review_items.c.device_id)
    return select(*kind, func.count()).where(IS_OPEN, *conditions(wanted.anywhere(), with_state=False)).group_by(*kind)


async def density(
    connection: AsyncConnection, wanted: ItemFilter, since_s: float, until_s: float, step_s: float
) -> list[Bucket]:
    """Return the items by intervals of `step_s` and by severity, without empty ones; raises DataError for too many."""
    if not step_s > 0 or not since_s < until_s or (until_s - since_s) / step_s > MAX_BUCKETS:
        raise DataError(f"A density has 1 to {MAX_BUCKETS} intervals: choose a longer step or a shorter time.")
    items = review_items.c
    share: Any = (items.first_at_s - since_s) / step_s
    is_postgresql = connection.dialect.name == "postgresql"
    bucket = func.floor(share) if is_postgresql else cast(share, Integer)  # SQLite cuts, and may lack floor
    within = (items.first_at_s >= since_s, items.first_at_s < until_s)
    numbered = select(bucket.label("bucket"), items.severity).where(*within, *conditions(wanted)).subquery()
    query = select(numbered.c.bucket, numbered.c.severity, func.count()).group_by(
        numbered.c.bucket, numbered.c.severity
    )
    rows = await connection.execute(query.order_by(numbered.c.bucket))
    return [Bucket(since_s + int(place) * step_s, Severity(severity), count) for place, severity, count in rows]
