"""Search of verdicts by ranges of indexes: its cost depends on the page, not on the size of the store.

A filter is split into the kinds of verdicts (modality, route, decision) that exist and match it. The verdicts of one
kind are one range of an index in the order of the list, so that a page reads at most its own length from each range,
also where nothing matches. A text has no such order: see `_search`. Sites with many devices are a condition on the
verdicts of all devices.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, true, tuple_, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.labels import IS_CURRENT
from cloud.store.schema import ALL_DEVICES, KIND, labels, samples, sources, verdict_counts, verdicts
from cloud.store.sites import by_sites, ids_of_sites
from cloud.store.verdict_columns import SEARCHED_NAMES
from cloud.store.verdict_keys import VerdictFilter, VerdictKey

WINDOW = 2000  # verdicts that one search compares with a text
MAX_CANDIDATES = 1000  # samples that a search takes from the index of origins
MAX_SOURCES = 8
MAX_SITE_RANGES = 64  # ranges of the devices of some sites; for more the index of all devices is read
_NAME_CHARACTERS = 512  # longest text that a device may send: longer filters match nothing
_LAST_CHARACTER = "\U0010ffff"

Range: TypeAlias = dict[str, str]
"""Values of the leading columns of an index."""


@dataclass(frozen=True, slots=True)
class Found:
    """Keys of matching verdicts, in the order of the search.

    `stopped_at` is the last key that a text was compared with, if more verdicts follow it and fewer than wanted match.
    """

    keys: tuple[VerdictKey, ...]
    stopped_at: VerdictKey | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """Part of the list: older than `before` and newer than `after`; oldest first if `is_ascending`."""

    before: VerdictKey | None = None
    after: VerdictKey | None = None
    is_ascending: bool = False


async def find_keys(connection: AsyncConnection, wanted: VerdictFilter, span: Span, limit: int) -> Found:
    """Return the keys of the first `limit` verdicts that match, from the beginning of the span."""
    if len(wanted.text) > _NAME_CHARACTERS:
        return Found(())
    if wanted.label:
        return Found(await _labelled(connection, wanted, span, limit))
    if wanted.text.lstrip("*"):
        return await _search(connection, wanted, span, limit)
    return Found(await _first(connection, await _ranges(connection, wanted), _conditions(wanted, span), span, limit))


async def _labelled(
    connection: AsyncConnection, wanted: VerdictFilter, span: Span, limit: int
) -> tuple[VerdictKey, ...]:
    """Return the first `limit` verdicts with this newest label; people give labels, so all with one value are few."""
    query = select(verdicts.c.judged_at_s, verdicts.c.number).join(labels, labels.c.sample_number == verdicts.c.number)
    query = query.where(labels.c.label == str(wanted.label), IS_CURRENT, *_conditions(wanted, span))
    if wanted.text.lstrip("*"):
        query = query.join(samples, samples.c.number == verdicts.c.number).where(_matches(wanted.text))
    query = _of_kind(query, wanted).order_by(*_order(verdicts.c, span)).limit(limit)
    return tuple(VerdictKey(*row) for row in await connection.execute(query))


async def _search(connection: AsyncConnection, wanted: VerdictFilter, span: Span, limit: int) -> Found:
    """Return the verdicts whose origin or source matches the text.

    Origins that begin with the text are found by their index if they are few. Otherwise, and for sources, the next
    `WINDOW` verdicts that match the other filters are compared with the text. The store does both by itself: thousands
    of keys would cost more as parameters of a query than the search.
    """
    conditions = _conditions(wanted, span)
    ranges: Sequence[Range] | None = None
    if not wanted.text.startswith("*"):
        candidates = _candidates(wanted.text)
        places = await _sources(connection, wanted)
        count = (await connection.execute(select(func.count()).select_from(candidates.subquery()))).scalar_one()
        if count <= MAX_CANDIDATES and not places:
            return Found(await _among(connection, candidates, wanted, conditions, span, limit))
        if not count and len(places) <= MAX_SOURCES:
            of_devices = [await _ranges(connection, wanted, device_id) for device_id in sorted(places)]
            ranges = [range_ for found in of_devices for range_ in found or ()]
    if ranges is None:
        ranges = await _ranges(connection, wanted)
    if ranges is not None and not ranges:
        return Found(())
    return await _in_window(connection, _first_query(ranges, conditions, span, WINDOW), wanted.text, span, limit)


async def _in_window(connection: AsyncConnection, keys: Select[Any], text: str, span: Span, limit: int) -> Found:
    """Return the first `limit` of these `WINDOW` keys whose sample matches the text."""
    window = keys.subquery()
    columns: Any
    joined, columns = window.join(samples, samples.c.number == window.c.number), samples.c
    if connection.dialect.name == "postgresql":
        # The limit keeps PostgreSQL from reading all partitions instead: it does not foresee that each key needs one.
        sample = select(*(samples.c[name] for name in SEARCHED_NAMES)).where(samples.c.number == window.c.number)
        found_sample = sample.limit(1).correlate(window).lateral()
        joined, columns = window.join(found_sample, true()), found_sample.c
    query = select(window.c.judged_at_s, window.c.number).select_from(joined).where(_matches(text, columns))
    query = query.order_by(*_order(window.c, span)).limit(limit)
    found = tuple(VerdictKey(*row) for row in await connection.execute(query))
    if len(found) == limit:
        return Found(found)
    last = (await connection.execute(keys.limit(1).offset(WINDOW - 1))).one_or_none()
    return Found(found, VerdictKey(*last) if last is not None else None)


async def _ranges(
    connection: AsyncConnection, wanted: VerdictFilter, device_id: str | None = None
) -> Sequence[Range] | None:
    """Return a range for each existing kind of verdicts that matches; None for the index of all verdicts."""
    device_id = device_id or wanted.device_id
    restricted = {name: str(value) for name in KIND if (value := getattr(wanted, name))}
    if wanted.sites and not device_id:
        found = await _ranges_of_sites(connection, wanted.sites, restricted)
        if found is not None:
            return found
    if not device_id and not restricted:
        return None
    query = select(*(verdict_counts.c[name] for name in KIND)).where(
        verdict_counts.c.device_id == (device_id or ALL_DEVICES), verdict_counts.c.verdicts > 0
    )
    for name, value in restricted.items():
        query = query.where(verdict_counts.c[name] == value)
    device = {"device_id": device_id} if device_id else {}
    return [device | dict(zip(KIND, row, strict=True)) for row in await connection.execute(query.order_by(*KIND))]


async def _ranges_of_sites(
    connection: AsyncConnection, sites: Collection[str], restricted: Range
) -> Sequence[Range] | None:
    """Return the ranges of the devices of these sites; None if they are too many for one query."""
    names = ("device_id", *KIND)
    query = select(*(verdict_counts.c[name] for name in names)).where(
        verdict_counts.c.device_id.in_(ids_of_sites(sites)), verdict_counts.c.verdicts > 0
    )
    for name, value in restricted.items():
        query = query.where(verdict_counts.c[name] == value)
    found = (await connection.execute(query.order_by(*names).limit(MAX_SITE_RANGES + 1))).all()
    return [dict(zip(names, row, strict=True)) for row in found] if len(found) <= MAX_SITE_RANGES else None


async def _first(
    connection: AsyncConnection,
    ranges: Sequence[Range] | None,
    conditions: Sequence[ColumnElement[bool]],
    span: Span,
    limit: int,
) -> tuple[VerdictKey, ...]:
    """Return the first `limit` keys of these ranges together, in the order of the span."""
    if ranges is not None and not ranges:
        return ()
    query = _first_query(ranges, conditions, span, limit)
    return tuple(VerdictKey(*row) for row in await connection.execute(query))


def _first_query(
    ranges: Sequence[Range] | None, conditions: Sequence[ColumnElement[bool]], span: Span, limit: int
) -> Select[Any]:
    """Return the query of `_first`; `ranges` are not empty."""
    parts = [_range_query(values, conditions, span, limit) for values in ranges or ({},)]
    if len(parts) == 1:
        return parts[0]
    merged = union_all(*(select(part.subquery()) for part in parts)).subquery()
    return select(merged).order_by(*_order(merged.c, span)).limit(limit)


def _range_query(values: Range, conditions: Sequence[ColumnElement[bool]], span: Span, limit: int) -> Select[Any]:
    query = select(verdicts.c.judged_at_s, verdicts.c.number).where(*conditions)
    query = query.where(*(verdicts.c[name] == value for name, value in values.items()))
    return query.order_by(*_order(verdicts.c, span)).limit(limit)


async def _among(
    connection: AsyncConnection,
    numbers: Select[tuple[int]],
    wanted: VerdictFilter,
    conditions: Sequence[ColumnElement[bool]],
    span: Span,
    limit: int,
) -> tuple[VerdictKey, ...]:
    """Return the first `limit` keys of these samples that match the other filters."""
    query: Select[Any] = _of_kind(select(verdicts.c.judged_at_s, verdicts.c.number).where(*conditions), wanted)
    if connection.dialect.name == "postgresql":
        candidates = numbers.subquery()
        found = query.where(verdicts.c.number == candidates.c.number).limit(1).correlate(candidates).lateral()
        of_found: Select[Any] = select(found.c.judged_at_s, found.c.number)
        query = of_found.select_from(candidates.join(found, true()))
        query = query.order_by(*_order(found.c, span))  # for the limit of 1 see _in_window
    else:
        query = query.where(verdicts.c.number.in_(numbers)).order_by(*_order(verdicts.c, span))
    return tuple(VerdictKey(*row) for row in await connection.execute(query.limit(limit)))


def _of_kind(query: Select[Any], wanted: VerdictFilter) -> Select[Any]:
    """Return `query` over verdicts of the wanted device and kind."""
    for name in ("device_id", *KIND):
        if value := getattr(wanted, name):
            query = query.where(verdicts.c[name] == str(value))
    return query


def _candidates(text: str) -> Select[tuple[int]]:
    """Return the query of judged samples whose origin begins with the text, at most one more than MAX_CANDIDATES.

    The order makes the index the cheapest plan, also where the store expects many matches.
    """
    origin = func.lower(samples.c.origin)
    found = select(samples.c.number).where(samples.c.judged == true(), _begins(origin, text))
    return found.order_by(origin).limit(MAX_CANDIDATES + 1)


async def _sources(connection: AsyncConnection, wanted: VerdictFilter) -> set[str]:
    """Return devices with a source that begins with the text, at most one more than MAX_SOURCES."""
    query = select(sources.c.device_id).where(_begins(sources.c.source_key, wanted.text)).limit(MAX_SOURCES + 1)
    if wanted.device_id:
        query = query.where(sources.c.device_id == wanted.device_id)
    return set((await connection.execute(query)).scalars())


def _matches(text: str, of_sample: Any = samples.c) -> ColumnElement[bool]:
    columns = [of_sample[name] for name in SEARCHED_NAMES]
    if text.startswith("*"):
        return or_(*(column.icontains(text.lstrip("*"), autoescape=True) for column in columns))
    return or_(*(_begins(func.lower(column), text) for column in columns))


def _begins(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """Return whether a text in lower case begins with `text`, as a range of an index."""
    first = func.lower(text)  # as the store computes it: letters beyond ASCII keep their case
    return and_(column >= first, column < first + _LAST_CHARACTER)


def _conditions(wanted: VerdictFilter, span: Span) -> list[ColumnElement[bool]]:
    """Return the conditions on the place in the list, and on the sites."""
    conditions = by_sites(verdicts.c.device_id, wanted.sites)
    place = tuple_(verdicts.c.judged_at_s, verdicts.c.number)
    if span.before is not None:
        conditions.append(place < tuple_(span.before.judged_at_s, span.before.number))
    if span.after is not None:
        conditions.append(place > tuple_(span.after.judged_at_s, span.after.number))
    if wanted.since_s is not None:
        conditions.append(verdicts.c.judged_at_s >= wanted.since_s)
    if wanted.until_s is not None:
        conditions.append(verdicts.c.judged_at_s < wanted.until_s)
    return conditions


def _order(columns: Any, span: Span) -> list[ColumnElement[Any]]:
    order = [columns.judged_at_s, columns.number]
    return order if span.is_ascending else [column.desc() for column in order]
