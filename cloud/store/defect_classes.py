"""Defect classes: the list of kinds of defects that a label real or missed may name.

Everybody who decides may add a class, up to MAX_CLASSES. A class keeps its number: labels name it, and are never
rewritten. A merged class reads as the one that it was merged into, a removed one keeps its name on its labels.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store import audit
from cloud.store.audit import AuditAction
from cloud.store.engine import Store
from cloud.store.schema import defect_classes
from shared.errors import DataError

MAX_CLASSES, MAX_CLASS_CHARACTERS = 64, 64
MAX_MERGED = 1000  # newest merged classes whose names are still known
_TARGET = defect_classes.alias("target")


@dataclass(frozen=True, slots=True)
class DefectClass:
    """One class that labels may name."""

    number: int
    name: str
    added_by: str
    added_at_s: float


class UnknownClassError(DataError):
    """A class that is not in the list."""


class ClassRefusedError(DataError):
    """A class that cannot be added, renamed or merged, or a label that may have none."""


def class_name(text: str) -> str:
    """Return the name of a class with single spaces; raises ClassRefusedError for an empty or long one."""
    name = " ".join(text.split())
    if not name or len(name) > MAX_CLASS_CHARACTERS or not name.isprintable():
        raise ClassRefusedError(f"The name of a defect class has 1 to {MAX_CLASS_CHARACTERS} printable characters.")
    return name


def folded(name: str) -> str:
    """Return the name of a class as it is compared: in one case for all letters, not only those of ASCII."""
    return " ".join(name.split()).casefold()


async def listed_classes(connection: AsyncConnection) -> tuple[DefectClass, ...]:
    """Return the classes that labels may name, in the order in which they were added."""
    query = select(defect_classes).where(*_is_listed()).order_by(defect_classes.c.number)
    return tuple(_stored(row) for row in (await connection.execute(query)).mappings())


async def find_class(connection: AsyncConnection, name: str) -> int | None:
    """Return the number of the class with this name, None for ""; raises UnknownClassError.

    The name of one of the newest MAX_MERGED merged classes stands for the one that it was merged into.
    """
    if not name:
        return None
    wanted = folded(class_name(name))
    query = select(defect_classes.c.name, func.coalesce(defect_classes.c.merged_into, defect_classes.c.number))
    query = query.where(defect_classes.c.removed_at_s.is_(None))
    # A listed class comes before a merged one with the same name.
    query = query.order_by(defect_classes.c.merged_into.is_not(None), defect_classes.c.number.desc())
    # Compared here: SQLite knows the case of the letters of ASCII only.
    for known, number in await connection.execute(query.limit(MAX_CLASSES + MAX_MERGED)):
        if folded(known) == wanted:
            return int(number)
    raise UnknownClassError(f"There is no defect class {name!r}: add it first, or choose one of the list.")


async def add_class(store: Store, name: str, actor: str) -> tuple[DefectClass, bool]:
    """Return the class with this name, and whether it is new; raises ClassRefusedError beyond MAX_CLASSES."""
    name = class_name(name)
    async with store.writing() as connection:
        known = await listed_classes(connection)
        for each in known:
            if folded(each.name) == folded(name):
                return each, False
        if len(known) >= MAX_CLASSES:
            raise ClassRefusedError(f"There are {MAX_CLASSES} defect classes already: merge or remove one first.")
        values: dict[str, Any] = {"name": name, "added_by": actor, "added_at_s": time.time()}
        number = await connection.execute(insert(defect_classes).values(values).returning(defect_classes.c.number))
        added = DefectClass(int(number.scalar_one()), **values)
        await audit.record(connection, actor, AuditAction.CLASS_ADDED, _subject(added.number), name=name)
        return added, True


async def rename_class(store: Store, number: int, name: str, actor: str) -> DefectClass:
    """Rename a class on all its labels; raises UnknownClassError, ClassRefusedError for a name of another one."""
    name = class_name(name)
    async with store.writing() as connection:
        known = {each.number: each for each in await listed_classes(connection)}
        before = _known(known, number)
        if any(folded(each.name) == folded(name) for each in known.values() if each.number != number):
            raise ClassRefusedError(f"There is a defect class {name!r} already: merge the two.")
        if before.name != name:
            await _change(connection, [number], name=name)
            details = {"name": name, "before": before.name}
            await audit.record(connection, actor, AuditAction.CLASS_CHANGED, _subject(number), **details)
        return DefectClass(number, name, before.added_by, before.added_at_s)


async def merge_class(store: Store, number: int, into: int, actor: str) -> DefectClass:
    """Let the labels of a class read as another class, which is returned; raises UnknownClassError."""
    if number == into:
        raise ClassRefusedError("A defect class cannot be merged into itself.")
    async with store.writing() as connection:
        known = {each.number: each for each in await listed_classes(connection)}
        before, target = _known(known, number), _known(known, into)
        earlier = select(defect_classes.c.number).where(defect_classes.c.merged_into == number)
        merged = [number, *(await connection.execute(earlier)).scalars()]
        await _change(connection, merged, merged_into=into)
        details = {"name": before.name, "merged_into": target.name}
        await audit.record(connection, actor, AuditAction.CLASS_CHANGED, _subject(number), **details)
        return target


async def remove_class(store: Store, number: int, actor: str) -> None:
    """Take a class off the list; labels that name it keep its name. Raises UnknownClassError."""
    async with store.writing() as connection:
        before = _known({each.number: each for each in await listed_classes(connection)}, number)
        merged = select(defect_classes.c.number).where(defect_classes.c.merged_into == number)
        numbers = [number, *(await connection.execute(merged)).scalars()]
        await _change(connection, numbers, removed_at_s=time.time())
        await audit.record(connection, actor, AuditAction.CLASS_REMOVED, _subject(number), name=before.name)


def with_class_name(query: Select[Any], number: ColumnElement[Any]) -> Select[Any]:
    """Return a query with the further column `class_name` for a column with a class's number; NULL without one."""
    named = defect_classes.outerjoin(_TARGET, _TARGET.c.number == defect_classes.c.merged_into)
    name = func.coalesce(_TARGET.c.name, defect_classes.c.name)
    found = select(name).select_from(named).where(defect_classes.c.number == number)
    return query.add_columns(found.scalar_subquery().label("class_name"))


def has_class(number: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """Return the condition that a column names the class with this name, or one that was merged into it.

    The name may be written in another case; on SQLite this applies to the letters of ASCII only.
    """
    is_name = or_(defect_classes.c.name == name, func.lower(defect_classes.c.name) == name.lower())
    wanted = select(defect_classes.c.number).where(is_name)
    numbers = select(defect_classes.c.number).where(
        or_(defect_classes.c.number.in_(wanted), defect_classes.c.merged_into.in_(wanted))
    )
    return number.in_(numbers)


def _is_listed() -> tuple[ColumnElement[bool], ...]:
    return defect_classes.c.merged_into.is_(None), defect_classes.c.removed_at_s.is_(None)


def _known(known: dict[int, DefectClass], number: int) -> DefectClass:
    if number not in known:
        raise UnknownClassError(f"There is no defect class {number}: it was merged or removed, or never added.")
    return known[number]


async def _change(connection: AsyncConnection, numbers: Sequence[int], **values: Any) -> None:
    await connection.execute(update(defect_classes).where(defect_classes.c.number.in_(numbers)).values(values))


def _subject(number: int) -> str:
    return f"defect class {number}"


def _stored(row: Any) -> DefectClass:
    return DefectClass(row["number"], row["name"], row["added_by"], row["added_at_s"])
