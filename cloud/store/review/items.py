"""Read-only queries on review items; none reads more rows than one page.

Pages are keyed by their last item. In the order of time an item keeps its place, however many verdicts join it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.defect_classes import with_class_name
from cloud.store.labels import Label
from cloud.store.near_copies import copies_of_items
from cloud.store.queries import verdict_rows
from cloud.store.review.item_filter import ItemFilter, conditions, is_marked
from cloud.store.review.severity import Severity
from cloud.store.schema import devices, review_decisions, review_items, review_members
from cloud.store.sites import of_sites
from cloud.store.verdict_columns import VerdictRow
from shared.modality import Modality

MAX_PAGE = 200
MAX_COUNTED = 100


class ItemOrder(StrEnum):
    """Order of a list of items."""

    NEWEST = "newest"
    OLDEST = "oldest"
    ODDEST = "oddest"


@dataclass(frozen=True, slots=True)
class ItemKey:
    """Place of an item in a list of any order."""

    p_value: float
    number: int


@dataclass(frozen=True, slots=True)
class StoredItem:
    """Review item as one person sees it.

    `p_value`: the lowest one; of the edge for undecided samples. `cover` is the oddest verdict, None where retention
    has deleted it. `decision_number` is that of the newest decision, 0 without one; `decision` is None after an undo.
    `defect_class` is the name of its class. `muted_by` is the mute that hid it, `is_hidden` whether it still does.
    `near_copies` of its samples stayed on the device.
    """

    number: int
    device_id: str
    site: str
    source_id: str
    modality: Modality
    severity: Severity
    first_at_s: float
    last_at_s: float
    verdicts: int
    p_value: float
    cover: VerdictRow | None
    is_reviewed: bool
    decision: Label | None
    decision_number: int
    decided_by: str
    decided_at_s: float | None
    note: str
    defect_class: str
    muted_by: int | None
    is_hidden: bool
    near_copies: int = 0

    @property
    def key(self) -> ItemKey:
        """Place of the item."""
        return ItemKey(self.p_value, self.number)

    @property
    def is_left(self) -> bool:
        """Whether it still asks this person."""
        return self.decision is None and not self.is_reviewed and not self.is_hidden


@dataclass(frozen=True, slots=True)
class ItemPage:
    """One page, and the place of the next one; None on the last page."""

    items: tuple[StoredItem, ...]
    following: ItemKey | None


async def item_page(
    connection: AsyncConnection, wanted: ItemFilter, order: ItemOrder, *, after: ItemKey | None = None, size: int = 50
) -> ItemPage:
    """Return the first `size` items in this order, or the next ones after a place."""
    items = review_items.c
    query = _listed(wanted.actor).where(*conditions(wanted))
    if after is not None:
        query = query.where(_behind(order, after))
    by = {
        ItemOrder.NEWEST: (items.number.desc(),),
        ItemOrder.OLDEST: (items.number,),
        ItemOrder.ODDEST: (items.p_value, items.number),
    }[order]
    rows = (await connection.execute(query.order_by(*by).limit(size + 1))).mappings().all()
    found = await _stored(connection, rows[:size])
    return ItemPage(found, found[-1].key if len(rows) > size else None)


async def items_by_number(
    connection: AsyncConnection, numbers: Sequence[int], actor: str, sites: tuple[str, ...] = ()
) -> tuple[StoredItem, ...]:
    """Return these items in the same order, without those that are not there or of other sites."""
    query = _listed(actor).where(review_items.c.number.in_(numbers))
    query = query.where(*of_sites(sites))
    found = await _stored(connection, (await connection.execute(query)).mappings().all())
    by_number = {item.number: item for item in found}
    return tuple(by_number[number] for number in numbers if number in by_number)


async def count_newer_items(connection: AsyncConnection, wanted: ItemFilter, number: int) -> int:
    """Return the number of items that are newer than an item, up to MAX_COUNTED."""
    query = select(review_items.c.number).where(review_items.c.number > number, *conditions(wanted))
    return len((await connection.execute(query.limit(MAX_COUNTED))).all())


async def newest_item(connection: AsyncConnection) -> int:
    """Return the number of the newest item, 0 if there is none."""
    query = select(review_items.c.number).order_by(review_items.c.number.desc()).limit(1)
    return int((await connection.execute(query)).scalar_one_or_none() or 0)


async def member_rows(connection: AsyncConnection, item: int, size: int) -> tuple[VerdictRow, ...]:
    """Return the first `size` verdicts of an item in the order of arrival."""
    query = select(review_members.c.number).where(review_members.c.item == item).order_by(review_members.c.number)
    numbers = list((await connection.execute(query.limit(size))).scalars())
    found = await verdict_rows(connection, numbers)
    return tuple(found[number] for number in numbers if number in found)


async def item_of(connection: AsyncConnection, sample_number: int) -> int | None:
    """Return the item of a verdict, None if it asks for nobody."""
    query = select(review_members.c.item).where(review_members.c.number == sample_number)
    return (await connection.execute(query)).scalar_one_or_none()


def _behind(order: ItemOrder, after: ItemKey) -> ColumnElement[bool]:
    items = review_items.c
    if order is ItemOrder.NEWEST:
        return items.number < after.number
    if order is ItemOrder.OLDEST:
        return items.number > after.number
    return or_(items.p_value > after.p_value, and_(items.p_value == after.p_value, items.number > after.number))


def _listed(actor: str) -> Select[Any]:
    joined = review_items.join(devices, devices.c.device_id == review_items.c.device_id).outerjoin(
        review_decisions, review_decisions.c.number == review_items.c.decision_number
    )
    decided = (review_decisions.c.author, review_decisions.c.at_s, review_decisions.c.note)
    query = select(review_items, devices.c.site, *decided, is_marked(actor).label("is_reviewed")).select_from(joined)
    return with_class_name(query, review_items.c.defect_class)


async def _stored(connection: AsyncConnection, rows: Sequence[RowMapping]) -> tuple[StoredItem, ...]:
    covers = await verdict_rows(connection, [row["cover"] for row in rows])
    copies = await copies_of_items(connection, [row["number"] for row in rows])
    return tuple(_item(row, covers.get(row["cover"]), copies.get(row["number"], 0)) for row in rows)


def _item(row: RowMapping, cover: VerdictRow | None, near_copies: int) -> StoredItem:
    plain = ("number", "device_id", "site", "source_id", "first_at_s", "last_at_s", "verdicts", "p_value")
    return StoredItem(
        **{name: row[name] for name in plain},
        modality=Modality(row["modality"]),
        severity=Severity(row["severity"]),
        cover=cover,
        is_reviewed=bool(row["is_reviewed"]),
        decision=Label(row["decision"]) if row["decision"] is not None else None,
        decision_number=row["decision_number"],
        decided_by=row["author"] or "",
        decided_at_s=row["at_s"],
        note=row["note"] or "",
        defect_class=row["class_name"] or "",
        muted_by=row["muted_by"],
        is_hidden=row["hidden_by"] is not None,
        near_copies=near_copies,
    )
