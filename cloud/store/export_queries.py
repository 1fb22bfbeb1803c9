"""Read-only queries on verdicts with their labels, oldest first, for exports."""

import uuid
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


async def time_range(connection: AsyncConnection, wanted: ExportSelection) -> tuple[float, float] | None:
    """Return the times of the first and the last selected verdict; None if there is none."""
    ends = []
    for order in (verdicts.c.judged_at_s.asc(), verdicts.c.judged_at_s.desc()):
        query = _selected(select(verdicts.c.judged_at_s), wanted).order_by(order).limit(1)
        ends.append((await connection.execute(query)).scalar_one_or_none())
    return (ends[0], ends[1]) if ends[0] is not None and ends[1] is not None else None


async def export_page(
    connection: AsyncConnection, wanted: ExportSelection, after: VerdictKey | None, size: int
) -> Sequence[Exported]:
    """Return the first `size` selected verdicts, or the next ones after a key, oldest first."""
    query = select(*_FULL).select_from(verdicts.join(samples, samples.c.number == verdicts.c.number))
    if after is not None:
        place = tuple_(verdicts.c.judged_at_s, verdicts.c.number)
        query = query.where(place > tuple_(after.judged_at_s, after.number))
    query = _selected(query, wanted).order_by(verdicts.c.judged_at_s, verdicts.c.number).limit(size)
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
