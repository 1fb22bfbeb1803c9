"""Read-only queries on verdicts with their labels, oldest first, for exports."""

import uuid
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, exists, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.labels import IS_CURRENT, StoredLabel, labels_of
from cloud.store.schema import labels, samples, verdicts
from cloud.store.verdict_columns import COLUMNS, SAMPLES, VerdictRecord
from cloud.store.verdict_keys import VerdictKey

_TABLES = {SAMPLES: samples}
_FULL = tuple(_TABLES.get(COLUMNS[name].tables[0], verdicts).c[name] for name in VerdictRecord.model_fields)

_JOINED = select(*_FULL).select_from(verdicts.join(samples, samples.c.number == verdicts.c.number))


@dataclass(frozen=True, slots=True)
class Exported:
    """One verdict, and the labels of its sample, newest first."""

    record: VerdictRecord
    labels: tuple[StoredLabel, ...]


@dataclass(frozen=True, slots=True)
class ExportSelection:
    """Verdicts judged from `since_s` on and before `until_s`; with `is_labelled` only those with a label.

    `labels`: only those whose newest label is one of these; none: all.
    """

    since_s: float | None
    until_s: float
    is_labelled: bool = False
    labels: tuple[str, ...] = ()

    @property
    def needs_label(self) -> bool:
        """Whether verdicts without a label are left out."""
        return self.is_labelled or bool(self.labels)


async def time_range(connection: AsyncConnection, wanted: ExportSelection) -> tuple[float, float] | None:
    """Return the times of the first and the last selected verdict; None if there is none."""
    ends = []
    for order in (verdicts.c.judged_at_s.asc(), verdicts.c.judged_at_s.desc()):
        query = _selected(select(verdicts.c.judged_at_s), wanted).order_by(order).limit(1)
        ends.append((await connection.execute(query)).scalar_one_or_none())
    return (ends[0], ends[1]) if ends[0] is not None and ends[1] is not None else None


async def labelled_numbers(connection: AsyncConnection, wanted: ExportSelection) -> Sequence[int]:
    """Return the numbers of the selected verdicts, oldest first: 8 bytes of memory for each.

    For a selection by label. Page by page the database would read all labels, or all verdicts between them, each time.
    """
    query = _selected(select(verdicts.c.number), wanted).order_by(verdicts.c.judged_at_s, verdicts.c.number)
    numbers = array("q")
    async for (number,) in await connection.stream(query):
        numbers.append(number)
    return numbers


async def exported(connection: AsyncConnection, numbers: Sequence[int]) -> Sequence[Exported]:
    """Return the verdicts of these numbers that are still there, oldest first."""
    # Both conditions: PostgreSQL then plans with the partitions of these numbers alone.
    is_wanted = verdicts.c.number.in_(numbers), samples.c.number.in_(numbers)
    return await _exported(connection, _JOINED.where(*is_wanted))


async def export_page(
    connection: AsyncConnection, wanted: ExportSelection, after: VerdictKey | None, size: int
) -> Sequence[Exported]:
    """Return the first `size` selected verdicts, or the next ones after a key, oldest first."""
    query = _JOINED
    if after is not None:
        place = tuple_(verdicts.c.judged_at_s, verdicts.c.number)
        query = query.where(place > tuple_(after.judged_at_s, after.number))
    return await _exported(connection, _selected(query, wanted).limit(size))


async def _exported(connection: AsyncConnection, query: Select[Any]) -> Sequence[Exported]:
    query = query.order_by(verdicts.c.judged_at_s, verdicts.c.number)
    records = [VerdictRecord.model_validate(dict(row)) for row in (await connection.execute(query)).mappings()]
    found = await labels_of(connection, [record.number for record in records])
    by_sample: dict[uuid.UUID, list[StoredLabel]] = {}
    for label in found:
        by_sample.setdefault(label.sample_id, []).append(label)
    return [Exported(record, tuple(by_sample.get(record.sample_id, ()))) for record in records]


def _selected(query: Select[Any], wanted: ExportSelection) -> Select[Any]:
    query = query.where(verdicts.c.judged_at_s < wanted.until_s)
    if wanted.since_s is not None:
        query = query.where(verdicts.c.judged_at_s >= wanted.since_s)
    if wanted.labels:
        newest = exists().where(labels.c.sample_number == verdicts.c.number, labels.c.label.in_(wanted.labels))
        query = query.where(newest.where(IS_CURRENT))
    if wanted.is_labelled:
        query = query.where(exists().where(labels.c.sample_number == verdicts.c.number))
    return query
