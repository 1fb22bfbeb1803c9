"""Labels of operators on stored samples: a history to which rows are only added; the newest counts."""

import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, exists, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store import audit
from cloud.store.defect_classes import ClassRefusedError, find_class, folded, with_class_name
from cloud.store.engine import Store
from cloud.store.sample_keys import is_sample
from cloud.store.schema import labels, samples
from cloud.store.sites import by_sites
from shared.errors import DataError

MAX_AUTHOR_CHARACTERS, MAX_NOTE_CHARACTERS, MAX_KEY_CHARACTERS = 128, 2000, 128


class Label(StrEnum):
    """An operator's word on a sample; `withdrawn` takes the one before it back, and the sample counts as unlabelled."""

    REAL = "real"
    FALSE_ALARM = "false_alarm"
    MISSED = "missed"
    UNSURE = "unsure"
    WITHDRAWN = "withdrawn"


WITH_CLASS = (Label.REAL, Label.MISSED)
"""Labels that may name a defect class."""


@dataclass(frozen=True, slots=True)
class StoredLabel:
    """One label; `is_current`: it is the newest of its sample. `defect_class`: name, empty without one."""

    number: int
    sample_id: uuid.UUID
    label: Label
    author: str
    note: str
    at_s: float
    is_current: bool
    defect_class: str = ""


@dataclass(frozen=True, slots=True)
class NewLabel:
    """A label to store. `client_key` names the request of an actor: a repeated one stores nothing.

    `defect_class` is the name of a class of the list; only a label of WITH_CLASS may have one.
    """

    label: Label
    author: str
    note: str = ""
    client_key: str | None = None
    defect_class: str = ""


class KeyReusedError(DataError):
    """A client key that stored another label before."""


_LATER = labels.alias("later")
IS_CURRENT = ~exists().where(_LATER.c.sample_number == labels.c.sample_number, _LATER.c.number > labels.c.number)
_LISTED = with_class_name(
    select(labels, samples.c.sample_id, IS_CURRENT.label("is_current")).join(
        samples, samples.c.number == labels.c.sample_number
    ),
    labels.c.defect_class,
)


async def add_label(store: Store, sample_id: uuid.UUID, new: NewLabel, actor: str) -> tuple[StoredLabel, bool] | None:
    """Return the stored label and whether it is new; None for an unknown sample.

    The same `client_key` of the same actor returns the label of the first request. Raises KeyReusedError if that was
    another label, UnknownClassError or ClassRefusedError for its defect class, StorageError if it cannot be written.
    """
    async with store.writing() as connection:
        found = select(samples.c.number).where(is_sample(connection, sample_id.bytes))
        sample_number = (await connection.execute(found)).scalar_one_or_none()
        if sample_number is None:
            return None
        if (stored := await _earlier(connection, sample_id, new, actor)) is not None:
            return stored, False
        number = await write_label(connection, sample_id, sample_number, new, actor)
        return _stored((await connection.execute(_LISTED.where(labels.c.number == number))).one()), True


async def write_label(
    connection: AsyncConnection, sample_id: uuid.UUID, sample_number: int, new: NewLabel, actor: str
) -> int:
    """Add a label in the transaction of a change, and return its number; raises as `add_label`."""
    defect_class = await class_of_label(connection, new.label, new.defect_class)
    values: dict[str, Any] = {
        "label": new.label.value,
        "author": new.author,
        "note": new.note,
        "client_key": new.client_key,
    }
    values |= {"sample_number": sample_number, "at_s": time.time(), "actor": actor, "defect_class": defect_class}
    number = (await connection.execute(insert(labels).values(values).returning(labels.c.number))).scalar_one()
    details = {"label": new.label.value, "author": new.author}
    if new.defect_class:
        details["class"] = new.defect_class
    await audit.record(connection, actor, audit.AuditAction.LABEL_ADDED, str(sample_id), **details)
    return int(number)


async def class_of_label(connection: AsyncConnection, label: Label, name: str) -> int | None:
    """Return the number of the defect class that a label names; raises UnknownClassError or ClassRefusedError."""
    if name and label not in WITH_CLASS:
        raise ClassRefusedError("Only the labels real and missed have a defect class.")
    return await find_class(connection, name)


async def label_history(connection: AsyncConnection, sample_id: uuid.UUID) -> tuple[StoredLabel, ...]:
    """Return all labels of a sample, newest first."""
    query = _LISTED.where(is_sample(connection, sample_id.bytes)).order_by(labels.c.number.desc())
    return tuple(_stored(row) for row in await connection.execute(query))


def newest_label(history: Sequence[StoredLabel]) -> Label | None:
    """Return the label that counts of a history, newest first; None for an unlabelled sample."""
    return history[0].label if history and history[0].label is not Label.WITHDRAWN else None


async def current_labels(connection: AsyncConnection, sample_numbers: Sequence[int]) -> dict[int, Label]:
    """Return the newest label of each of these samples that has one, by the sample's number; none that is withdrawn."""
    newest = (
        select(func.max(labels.c.number))
        .where(labels.c.sample_number.in_(sample_numbers))
        .group_by(labels.c.sample_number)
    )
    query = select(labels.c.sample_number, labels.c.label).where(labels.c.number.in_(newest))
    query = query.where(labels.c.label != Label.WITHDRAWN.value)
    return {row.sample_number: Label(row.label) for row in await connection.execute(query)}


async def labels_of(connection: AsyncConnection, sample_numbers: Sequence[int]) -> tuple[StoredLabel, ...]:
    """Return all labels of these samples, newest first."""
    query = _LISTED.where(labels.c.sample_number.in_(sample_numbers)).order_by(labels.c.number.desc())
    return tuple(_stored(row) for row in await connection.execute(query))


async def label_page(
    connection: AsyncConnection,
    *,
    only_current: bool = False,
    before: int | None = None,
    size: int = 50,
    sites: Collection[str] = (),
) -> tuple[StoredLabel, ...]:
    """Return the newest `size` labels of samples of these sites, or the next ones older than the number `before`."""
    query = _LISTED.where(*by_sites(samples.c.device_id, sites)).order_by(labels.c.number.desc()).limit(size)
    if only_current:
        query = query.where(IS_CURRENT)
    if before is not None:
        query = query.where(labels.c.number < before)
    return tuple(_stored(row) for row in await connection.execute(query))


async def _earlier(connection: AsyncConnection, sample_id: uuid.UUID, new: NewLabel, actor: str) -> StoredLabel | None:
    """Return the label that an earlier request with the same key stored."""
    if new.client_key is None:
        return None
    query = _LISTED.where(labels.c.actor == actor, labels.c.client_key == new.client_key)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    stored = _stored(row)
    given = (sample_id, new.label, new.author, new.note, folded(new.defect_class))
    found = (stored.sample_id, stored.label, stored.author, stored.note, folded(stored.defect_class))
    if found != given:
        raise KeyReusedError(f"Key {new.client_key!r} stored another label before: use a new key for each label.")
    return stored


def _stored(row: Row[Any]) -> StoredLabel:
    return StoredLabel(
        number=row.number,
        sample_id=uuid.UUID(bytes=row.sample_id),
        label=Label(row.label),
        author=row.author,
        note=row.note,
        at_s=row.at_s,
        is_current=bool(row.is_current),
        defect_class=row.class_name or "",
    )
