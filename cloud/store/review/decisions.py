"""Decisions of people on review items, and their undo.

A decision writes a label for each verdict of its items in one transaction; labels that others give to single samples
afterwards stay. An item that a mute hides is shown again once it is decided. Each request names the newest decision
that its author has seen: if there is a later one, nothing is stored and the author is asked. An undo is a decision,
too: it brings back the decision and the labels before.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, bindparam, cast, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store import audit
from cloud.store.audit import AuditAction
from cloud.store.defect_classes import folded, with_class_name
from cloud.store.engine import Store
from cloud.store.labels import KeyReusedError, Label, class_of_label
from cloud.store.review.marks import mark_in
from cloud.store.review.progress import raise_version
from cloud.store.review.severity import Severity
from cloud.store.schema import labels, review_decisions, review_items, review_members, samples
from cloud.store.sites import by_sites
from cloud.store.verdict_columns import Number
from shared.errors import DataError

DECISIONS = (Label.REAL, Label.FALSE_ALARM, Label.UNSURE)
MAX_ITEMS, MAX_DECIDED_VERDICTS = 200, 5000
_AUDITED = {False: AuditAction.ITEM_DECIDED, True: AuditAction.ITEM_UNDONE}


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """Decision on an item; `decision` is None after an undo that brought back no decision.

    `defect_class` is the name of its class, empty without one.
    """

    number: int
    item: int
    decision: Label | None
    note: str
    author: str
    at_s: float
    before: int
    undoes: int | None
    defect_class: str = ""


@dataclass(frozen=True, slots=True)
class Decider:
    """Who decides. `sites`: the only ones whose items the person may decide; none: all. `client_key`: see labels."""

    author: str
    actor: str
    sites: tuple[str, ...] = ()
    client_key: str | None = None


@dataclass(frozen=True, slots=True)
class NewDecision:
    """Decision on several items; `seen` are the numbers of the newest decisions that the author saw (0: none).

    `defect_class` is the name of a class of the list, for the decision real.
    """

    decision: Label
    seen: Mapping[int, int]
    note: str = ""
    defect_class: str = ""


class UnknownItemsError(DataError):
    """Items that are not in the store, or of a site of others."""

    def __init__(self, items: Sequence[int]) -> None:
        shown = ", ".join(map(str, items[:5]))
        super().__init__(f"There is no review item {shown}{' ...' if len(items) > 5 else ''}: it may have expired.")
        self.items = tuple(items)


class DecisionConflictError(DataError):
    """Items with a later decision than the author saw, or no such one to undo; `found` are the newest ones."""

    def __init__(self, found: Sequence[StoredDecision]) -> None:
        first = found[0]
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        word = first.decision.value if first.decision is not None else "nothing"
        super().__init__(f"{first.author} has decided {word} on item {first.item}{more} meanwhile: look, then decide.")
        self.found = tuple(found)


class TooManyVerdictsError(DataError):
    """More verdicts than one request may label."""


async def decide(store: Store, wanted: NewDecision, by: Decider) -> list[StoredDecision]:
    """Store a decision on each of these items, or on none; return them by item.

    A repeated request with the same key returns what the first one stored. Raises UnknownItemsError,
    DecisionConflictError, TooManyVerdictsError, UnknownClassError, ClassRefusedError, KeyReusedError or StorageError.
    """
    items = sorted(wanted.seen)
    async with store.writing() as connection:
        if earlier := await _earlier(connection, by):
            given = (wanted.decision, wanted.note, folded(wanted.defect_class), by.author, None)
            if {row.item: row.before for row in earlier} != wanted.seen or any(
                (row.decision, row.note, folded(row.defect_class), row.author, row.undoes) != given for row in earlier
            ):
                raise KeyReusedError(f"Key {by.client_key!r} stored another decision before: use a new key for each.")
            return earlier
        rows = await _items(connection, items, by.sites)
        changed = [row["decision_number"] for row in rows if row["decision_number"] != wanted.seen[row["number"]]]
        if changed:
            raise await _conflict(connection, changed)
        after = await _last_label(connection)
        of_class = await class_of_label(connection, wanted.decision, wanted.defect_class)
        for label, numbers in _labels_of(rows, wanted.decision).items():
            await connection.execute(_label_members(numbers, label, wanted.note, of_class, by))
        decided = {"decision": wanted.decision.value, "note": wanted.note, "defect_class": of_class}
        new = [_row(item, decided, item["decision_number"], None, by) for item in rows]
        return await _store(connection, new, after, by)


async def undo(store: Store, numbers: Sequence[int], by: Decider) -> list[StoredDecision]:
    """Take these decisions back, or none of them: bring back the decisions and labels before; return the new ones.

    Raises like `decide`; a decision that is not the newest of its item any more is a conflict.
    """
    async with store.writing() as connection:
        if earlier := await _earlier(connection, by):
            is_same = sorted(row.undoes or 0 for row in earlier) == sorted(numbers)
            if not is_same or any(row.author != by.author for row in earlier):
                raise KeyReusedError(f"Key {by.client_key!r} stored another decision before: use a new key for each.")
            return earlier
        taken = await _rows_by_number(connection, numbers)
        if missing := sorted(set(numbers) - taken.keys()):
            raise UnknownItemsError(missing)
        items = {row["item"]: row for row in taken.values()}
        rows = await _items(connection, sorted(items), by.sites)
        changed = [row["decision_number"] for row in rows if row["decision_number"] != items[row["number"]]["number"]]
        if changed:
            raise await _conflict(connection, changed)
        before = await _rows_by_number(connection, [row["before"] for row in taken.values()])
        after = await _last_label(connection)
        new = []
        for item in rows:
            row = items[item["number"]]
            await connection.execute(_restore_labels(row, by))
            earlier_one = before.get(row["before"])
            names = ("decision", "defect_class")
            restored = dict.fromkeys(names) if earlier_one is None else {name: earlier_one[name] for name in names}
            restored |= {"note": ""}
            new.append(_row(item, restored, row["number"], row["number"], by))
        return await _store(connection, new, after, by)


async def decisions_on(connection: AsyncConnection, item: int) -> list[StoredDecision]:
    """Return the decisions on an item, newest first."""
    query = _LISTED.where(review_decisions.c.item == item).order_by(review_decisions.c.number.desc())
    return [_stored(row) for row in (await connection.execute(query)).mappings()]


@dataclass(frozen=True, slots=True)
class _New:
    """Row of review_decisions to add; `verdicts` of its item."""

    values: dict[str, Any]
    verdicts: int = field(default=0)


def _row(item: RowMapping, decided: Mapping[str, Any], before: int, undoes: int | None, by: Decider) -> _New:
    """Return the row of a decision; `decided`: decision, note and defect_class."""
    values = {
        "item": item["number"],
        **decided,
        "author": by.author,
        "actor": by.actor,
        "at_s": time.time(),
        "client_key": by.client_key,
        "before": before,
        "undoes": undoes,
    }
    return _New(values, item["verdicts"])


async def _store(connection: AsyncConnection, new: Sequence[_New], after: int, by: Decider) -> list[StoredDecision]:
    """Add the rows, and point their items at them."""
    labels_range = {"labels_after": after, "labels_upto": await _last_label(connection)}
    adding = insert(review_decisions).returning(review_decisions.c.number, sort_by_parameter_order=True)
    numbers = (await connection.execute(adding, [row.values | labels_range for row in new])).scalars().all()
    by_number = await _rows_by_number(connection, numbers)
    found = [by_number[number] for number in numbers]
    names = ("decision", "decision_number", "defect_class")
    changes: dict[str, Any] = {name: bindparam(f"new_{name}") for name in names} | {"hidden_by": None}
    await connection.execute(
        update(review_items).where(review_items.c.number == bindparam("changed")).values(changes),
        [
            {
                "changed": row["item"],
                "new_decision": row["decision"],
                "new_decision_number": row["number"],
                "new_defect_class": row["defect_class"],
            }
            for row in found
        ],
    )
    await mark_in(connection, by.actor, [row["item"] for row in found], is_reviewed=found[0]["undoes"] is None)
    await raise_version(connection)
    entries = [
        (
            f"item {row['item']}",
            {"decision": row["decision"], "number": row["number"], "verdicts": item.verdicts}
            | ({"class": row["class_name"]} if row["class_name"] else {}),
        )
        for row, item in zip(found, new, strict=True)
    ]
    await audit.record_all(connection, by.actor, _AUDITED[found[0]["undoes"] is not None], entries)
    return [_stored(row) for row in found]


async def _items(connection: AsyncConnection, numbers: Sequence[int], sites: Sequence[str]) -> list[RowMapping]:
    """Return the items with these numbers; raises UnknownItemsError or TooManyVerdictsError."""
    columns = ("number", "severity", "verdicts", "decision_number")
    query = select(*(review_items.c[name] for name in columns)).where(review_items.c.number.in_(numbers))
    query = query.where(*by_sites(review_items.c.device_id, sites))
    rows = list((await connection.execute(query.order_by(review_items.c.number))).mappings())
    if missing := sorted(set(numbers) - {row["number"] for row in rows}):
        raise UnknownItemsError(missing)
    if len(rows) > 1 and sum(row["verdicts"] for row in rows) > MAX_DECIDED_VERDICTS:
        raise TooManyVerdictsError(f"These items have more than {MAX_DECIDED_VERDICTS} verdicts: select fewer at once.")
    return rows


def _labels_of(rows: Sequence[RowMapping], decision: Label) -> dict[Label, list[int]]:
    """Return the items by the label that a decision gives: a real anomaly that the edge had accepted is missed."""
    found: dict[Label, list[int]] = {}
    for row in rows:
        is_missed = decision is Label.REAL and row["severity"] == Severity.MISSED
        found.setdefault(Label.MISSED if is_missed else decision, []).append(row["number"])
    return found


def _label_members(items: Sequence[int], label: Label, note: str, of_class: int | None, by: Decider) -> Any:
    members = review_members.join(samples, samples.c.number == review_members.c.number)
    values = (samples.c.number, literal(label.value), literal(by.author), literal(note), literal(time.time()))
    chosen = (
        select(*values, literal(by.actor), cast(of_class, Number))
        .select_from(members)
        .where(review_members.c.item.in_(items))
    )
    return insert(labels).from_select(_LABEL_COLUMNS, chosen.order_by(samples.c.number))


_LABEL_COLUMNS = ["sample_number", "label", "author", "note", "at_s", "actor", "defect_class"]
_LISTED = with_class_name(select(review_decisions), review_decisions.c.defect_class)


def _restore_labels(taken: RowMapping, by: Decider) -> Any:
    """Return the statement that gives each sample the label before a decision, unless it has a later one."""
    member = review_members.c.number

    def before(column: ColumnElement[Any]) -> Any:
        earlier = select(column).where(labels.c.sample_number == member, labels.c.number <= taken["labels_after"])
        return earlier.order_by(labels.c.number.desc()).limit(1).scalar_subquery()

    newest = select(func.max(labels.c.number)).where(labels.c.sample_number == member).scalar_subquery()
    values = (
        member,
        func.coalesce(before(labels.c.label), Label.WITHDRAWN.value),
        literal(by.author),
        literal(""),
        literal(time.time()),
        literal(by.actor),
        before(labels.c.defect_class),
    )
    chosen = select(*values).select_from(review_members.join(samples, samples.c.number == member))
    of_decision = newest.between(taken["labels_after"] + 1, taken["labels_upto"])
    return insert(labels).from_select(
        _LABEL_COLUMNS, chosen.where(review_members.c.item == taken["item"], of_decision).order_by(member)
    )


async def _last_label(connection: AsyncConnection) -> int:
    return int((await connection.execute(select(func.coalesce(func.max(labels.c.number), 0)))).scalar_one())


async def _earlier(connection: AsyncConnection, by: Decider) -> list[StoredDecision]:
    """Return the decisions of an earlier request with the same key, by item."""
    if by.client_key is None:
        return []
    decisions = review_decisions.c
    query = _LISTED.where(decisions.actor == by.actor, decisions.client_key == by.client_key)
    return [_stored(row) for row in (await connection.execute(query.order_by(decisions.item))).mappings()]


async def _rows_by_number(connection: AsyncConnection, numbers: Sequence[int]) -> dict[int, RowMapping]:
    query = _LISTED.where(review_decisions.c.number.in_(numbers))
    return {row["number"]: row for row in (await connection.execute(query)).mappings()}


async def _conflict(connection: AsyncConnection, numbers: Sequence[int]) -> DataError:
    """Return the error of a request whose author did not see these decisions; 0 stands for none."""
    found = await _rows_by_number(connection, numbers)
    if not found:
        return DataError("'seen' names a decision that is not there: read the item again.")
    return DecisionConflictError([_stored(found[number]) for number in sorted(found)])


def _stored(row: RowMapping) -> StoredDecision:
    return StoredDecision(
        row["number"],
        row["item"],
        Label(row["decision"]) if row["decision"] is not None else None,
        row["note"],
        row["author"],
        row["at_s"],
        row["before"],
        row["undoes"],
        row["class_name"] or "",
    )
