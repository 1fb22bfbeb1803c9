"""Read-only queries on verdicts, for the console; none reads more rows than one page.

Pages are keyed by their first and last row, newest first: any page costs the same, and a page does not shift while new
verdicts arrive. Each function takes a connection of `Store.reading`, so that one view shows one state of the store.
"""

import math
import uuid
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import ColumnElement, Select, and_, func, literal, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.payload_rows import payload_message
from cloud.store.schema import anomaly_maps, bundles, payloads, samples, verdicts
from cloud.store.verdict_columns import (
    COLUMNS,
    FILTER_NAMES,
    LISTED_NAMES,
    SAMPLES,
    SEARCHED_NAMES,
    VERDICTS,
    VerdictRecord,
    VerdictRow,
)
from shared.errors import DataError
from shared.modality import Modality
from shared.samples import Decision, Route
from vedette.v1 import sample_pb2

MAX_PAGE_SIZE = 200
MAX_COUNTED = 100
_NAME_CHARACTERS = 512  # longest text that a device may send: longer filters match nothing


@dataclass(frozen=True, slots=True)
class VerdictKey:
    """Position of one verdict in the list."""

    judged_at_s: float
    number: int

    def __str__(self) -> str:
        return f"{self.judged_at_s!r}:{self.number}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the key that `str` wrote; raises DataError for any other text."""
        seconds, _, number = text.partition(":")
        try:
            key = cls(float(seconds), int(number))
        except ValueError:
            key = None
        if key is None or not math.isfinite(key.judged_at_s) or not 0 <= key.number < 2**63:
            raise DataError(f"{text[:60]!r} is not a page key: use 'older' or 'newer' of an earlier answer.")
        return key


def key_of(row: VerdictRow) -> VerdictKey:
    """Return the place of `row` in the list."""
    return VerdictKey(row.judged_at_s, row.number)


@dataclass(frozen=True, slots=True)
class VerdictFilter:
    """Filter of the list; None and "" do not restrict. `text` is searched for in origin and source id."""

    device_id: str = ""
    modality: Modality | None = None
    route: Route | None = None
    decision: Decision | None = None
    text: str = ""
    since_s: float | None = None
    until_s: float | None = None


@dataclass(frozen=True, slots=True)
class VerdictPage:
    """One page, newest first, and the keys of the pages after and before it; None where there is none."""

    rows: tuple[VerdictRow, ...]
    older: VerdictKey | None
    newer: VerdictKey | None


@dataclass(frozen=True, slots=True)
class StoredMap:
    """Anomaly map as stored: `cells` are height x width uint8 in C order."""

    height: int
    width: int
    cells: bytes


@dataclass(frozen=True, slots=True)
class StoredPayload:
    """Payload of a sample as received, and the device's anomaly map."""

    modality: Modality
    judged: bool
    message: sample_pb2.Payload
    edge_map: StoredMap | None


@dataclass(frozen=True, slots=True)
class JudgedSample:
    """One judged sample without its payload. `channels`: names of features or channels, () if unknown."""

    record: VerdictRecord
    channels: tuple[str, ...]


_TABLES = {SAMPLES: samples, VERDICTS: verdicts}
_LISTED = tuple(_TABLES[COLUMNS[name].tables[0]].c[name] for name in LISTED_NAMES)
_FILTERED = {name: _TABLES[COLUMNS[name].tables[-1]].c[name] for name in FILTER_NAMES}
_SEARCHED = tuple(samples.c[name] for name in SEARCHED_NAMES)
_ORDER = (verdicts.c.judged_at_s, verdicts.c.number)


async def verdict_page(
    connection: AsyncConnection,
    wanted: VerdictFilter,
    *,
    before: VerdictKey | None = None,
    after: VerdictKey | None = None,
    size: int = 50,
) -> VerdictPage:
    """Return the newest `size` verdicts, or the next ones older than `before` or newer than `after`.

    Raises DataError for a size outside 1..MAX_PAGE_SIZE, or for both keys at once.
    """
    if not 1 <= size <= MAX_PAGE_SIZE:
        raise DataError(f"A page has 1 to {MAX_PAGE_SIZE} verdicts, not {size}.")
    if before is not None and after is not None:
        raise DataError("A page is before or after a verdict: give only one of the two keys.")
    query = _filtered(select(*_LISTED), wanted).limit(size + 1)
    if after is not None:
        query = query.where(_is_newer(after)).order_by(*_ORDER)
    else:
        query = query.order_by(*(column.desc() for column in _ORDER))
        if before is not None:
            query = query.where(_is_older(before))
    found = [VerdictRow.model_validate(dict(row)) for row in (await connection.execute(query)).mappings()]
    has_more = len(found) > size
    rows = found[:size] if after is None else found[:size][::-1]
    if not rows:
        return VerdictPage((), None, None)
    has_older = has_more if after is None else await _exists(connection, wanted, _is_older(key_of(rows[-1])))
    has_newer = has_more if after is not None else before is not None
    return VerdictPage(tuple(rows), key_of(rows[-1]) if has_older else None, key_of(rows[0]) if has_newer else None)


async def count_newer(connection: AsyncConnection, wanted: VerdictFilter, key: VerdictKey | None) -> int:
    """Return the number of verdicts newer than `key` (None: of all), up to MAX_COUNTED."""
    query = _filtered(select(literal(1)), wanted).limit(MAX_COUNTED)
    if key is not None:
        query = query.where(_is_newer(key))
    return int((await connection.execute(select(func.count()).select_from(query.subquery()))).scalar_one())


async def judged_sample(connection: AsyncConnection, sample_id: uuid.UUID) -> JudgedSample | None:
    """Return one judged sample; None for a sample that is unknown or not judged yet."""
    query = _filtered(select(*_LISTED, verdicts.c.opinions), VerdictFilter()).where(
        samples.c.sample_id == sample_id.bytes
    )
    found = (await connection.execute(query)).mappings().one_or_none()
    if found is None:
        return None
    record = VerdictRecord.model_validate(dict(found))
    return JudgedSample(record, await _channels(connection, record.bundle_id, record.edge_bundle_id))


async def is_waiting(connection: AsyncConnection, sample_id: uuid.UUID) -> bool:
    """Return whether the sample is stored and waits for its verdict."""
    query = select(samples.c.number).where(samples.c.sample_id == sample_id.bytes, samples.c.judged.is_(False))
    return (await connection.execute(query)).first() is not None


async def stored_payload(connection: AsyncConnection, sample_id: uuid.UUID) -> StoredPayload | None:
    """Return the payload of one sample; None if the sample is unknown or its payload has expired."""
    query = (
        select(samples.c.modality, samples.c.judged, *(column for column in payloads.c if column.name != "number"))
        .join(payloads, payloads.c.number == samples.c.number)
        .where(samples.c.sample_id == sample_id.bytes)
    )
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        return None
    edge_map = None
    if row["edge_map"] is not None:
        edge_map = StoredMap(row["edge_map_height"], row["edge_map_width"], row["edge_map"])
    return StoredPayload(Modality(row["modality"]), row["judged"], payload_message(row), edge_map)


async def stored_map(connection: AsyncConnection, sample_id: uuid.UUID) -> StoredMap | None:
    """Return the cloud's anomaly map of one sample, or None."""
    query = (
        select(anomaly_maps.c.height, anomaly_maps.c.width, anomaly_maps.c.cells)
        .join(samples, samples.c.number == anomaly_maps.c.number)
        .where(samples.c.sample_id == sample_id.bytes)
    )
    row = (await connection.execute(query)).one_or_none()
    return StoredMap(row.height, row.width, row.cells) if row is not None else None


def _filtered(query: Select[Any], wanted: VerdictFilter) -> Select[Any]:
    """Return `query` over verdicts and their samples, restricted by the filter."""
    query = query.select_from(verdicts.join(samples, samples.c.number == verdicts.c.number))
    conditions: list[ColumnElement[bool]] = []
    for name, column in _FILTERED.items():
        if value := getattr(wanted, name):
            conditions.append(column == str(value))
    if wanted.text:
        text = wanted.text[:_NAME_CHARACTERS]
        conditions.append(or_(*(column.icontains(text, autoescape=True) for column in _SEARCHED)))
    if wanted.since_s is not None:
        conditions.append(verdicts.c.judged_at_s >= wanted.since_s)
    if wanted.until_s is not None:
        conditions.append(verdicts.c.judged_at_s < wanted.until_s)
    return query.where(and_(True, *conditions))


def _is_older(key: VerdictKey) -> ColumnElement[bool]:
    return tuple_(*_ORDER) < tuple_(key.judged_at_s, key.number)


def _is_newer(key: VerdictKey) -> ColumnElement[bool]:
    return tuple_(*_ORDER) > tuple_(key.judged_at_s, key.number)


async def _exists(connection: AsyncConnection, wanted: VerdictFilter, condition: ColumnElement[bool]) -> bool:
    query = _filtered(select(literal(1)), wanted).where(condition).limit(1)
    return (await connection.execute(query)).first() is not None


async def _channels(connection: AsyncConnection, *bundle_ids: str) -> tuple[str, ...]:
    """Return names of features or channels from the first of these bundles in the registry."""
    query = select(bundles.c.bundle_id, bundles.c.manifest[("input", "channels")].label("channels"))
    found = await connection.execute(query.where(bundles.c.bundle_id.in_(bundle_ids)))
    channels = {row.bundle_id: row.channels for row in found}
    return next((tuple(channels[name]) for name in bundle_ids if channels.get(name)), ())
