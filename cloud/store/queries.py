"""Read-only queries on verdicts, for the console; none reads more rows than one page.

Pages are keyed by their first and last row, newest first: any page costs the same (`cloud.store.verdict_ranges`), and a
page does not shift while new verdicts arrive. Each function takes a connection of `Store.reading`, so that one view
shows one state of the store.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, false, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.inbox import may_be_in_inbox
from cloud.store.sample_keys import is_sample
from cloud.store.schema import bundles, samples, verdicts
from cloud.store.verdict_columns import COLUMNS, LISTED_NAMES, SAMPLES, VERDICTS, VerdictRecord, VerdictRow
from cloud.store.verdict_keys import VerdictFilter, VerdictKey
from cloud.store.verdict_ranges import Span, find_keys
from shared.errors import DataError

MAX_PAGE_SIZE = 200
MAX_COUNTED = 100


def key_of(row: VerdictRow) -> VerdictKey:
    """Return the place of `row` in the list."""
    return VerdictKey(row.judged_at_s, row.number)


@dataclass(frozen=True, slots=True)
class VerdictPage:
    """One page, newest first, and the keys of the pages after and before it; None where there is none.

    `is_partial`: the search for a text ended before the page was full, and goes on with the next page.
    """

    rows: tuple[VerdictRow, ...]
    older: VerdictKey | None
    newer: VerdictKey | None
    is_partial: bool = False


@dataclass(frozen=True, slots=True)
class JudgedSample:
    """One judged sample without its payload. `channels`: names of features or channels, () if unknown."""

    record: VerdictRecord
    channels: tuple[str, ...]


_TABLES = {SAMPLES: samples, VERDICTS: verdicts}
_LISTED = tuple(_TABLES[COLUMNS[name].tables[0]].c[name] for name in LISTED_NAMES)


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
    if after is not None:
        return await _page_after(connection, wanted, after, size)
    found = await find_keys(connection, wanted, Span(before=before), size + 1)
    rows = await _rows(connection, found.keys[:size])
    has_more = len(found.keys) > size
    older = key_of(rows[-1]) if has_more else found.stopped_at
    newer = key_of(rows[0]) if rows and before is not None else None
    return VerdictPage(rows, older, newer, is_partial=found.stopped_at is not None and len(rows) < size)


async def _page_after(connection: AsyncConnection, wanted: VerdictFilter, after: VerdictKey, size: int) -> VerdictPage:
    """Return the next verdicts that are newer than `after`."""
    found = await find_keys(connection, wanted, Span(after=after, is_ascending=True), size + 1)
    rows = await _rows(connection, found.keys[:size][::-1])
    newer = key_of(rows[0]) if len(found.keys) > size else found.stopped_at
    older = None
    if rows:
        before = await find_keys(connection, wanted, Span(before=key_of(rows[-1])), 1)
        older = key_of(rows[-1]) if before.keys or before.stopped_at else None
    return VerdictPage(rows, older, newer, is_partial=found.stopped_at is not None and len(rows) < size)


async def verdict_rows(connection: AsyncConnection, numbers: Sequence[int]) -> dict[int, VerdictRow]:
    """Return the rows of these verdicts by number, without those that are not there."""
    # Both conditions: PostgreSQL then plans with the partitions of these numbers alone.
    query = _judged(select(*_LISTED)).where(verdicts.c.number.in_(numbers), samples.c.number.in_(numbers))
    rows = (await connection.execute(query)).mappings()
    return {row["number"]: VerdictRow.model_validate(dict(row)) for row in rows}


async def _rows(connection: AsyncConnection, keys: Sequence[VerdictKey]) -> tuple[VerdictRow, ...]:
    """Return the rows of these verdicts, in the same order."""
    found = await verdict_rows(connection, [key.number for key in keys])
    return tuple(found[key.number] for key in keys)


async def count_newer(connection: AsyncConnection, wanted: VerdictFilter, key: VerdictKey | None) -> int:
    """Return the number of verdicts newer than `key` (None: of all), up to MAX_COUNTED."""
    return len((await find_keys(connection, wanted, Span(after=key, is_ascending=True), MAX_COUNTED)).keys)


async def judged_sample(connection: AsyncConnection, sample_id: uuid.UUID) -> JudgedSample | None:
    """Return one judged sample; None for a sample that is unknown or not judged yet."""
    query = _judged(select(*_LISTED, verdicts.c.opinions)).where(is_sample(connection, sample_id.bytes))
    found = (await connection.execute(query)).mappings().one_or_none()
    if found is None:
        return None
    record = VerdictRecord.model_validate(dict(found))
    return JudgedSample(record, await _channels(connection, record.bundle_id, record.edge_bundle_id))


async def is_waiting(connection: AsyncConnection, sample_id: uuid.UUID) -> bool:
    """Return whether the sample waits for its verdict, or may wait: a long inbox is not searched to its end."""
    query = select(samples.c.number).where(is_sample(connection, sample_id.bytes), samples.c.judged == false())
    return (await connection.execute(query)).first() is not None or await may_be_in_inbox(connection, sample_id.bytes)


def _judged(query: Select[Any]) -> Select[Any]:
    """Return `query` over verdicts and their samples."""
    return query.select_from(verdicts.join(samples, samples.c.number == verdicts.c.number))


async def _channels(connection: AsyncConnection, *bundle_ids: str) -> tuple[str, ...]:
    """Return names of features or channels from the first of these bundles in the registry."""
    query = select(bundles.c.bundle_id, bundles.c.manifest[("input", "channels")].label("channels"))
    found = await connection.execute(query.where(bundles.c.bundle_id.in_(bundle_ids)))
    channels = {row.bundle_id: row.channels for row in found}
    return next((tuple(channels[name]) for name in bundle_ids if channels.get(name)), ())
