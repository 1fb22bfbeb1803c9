"""Counter of verdicts for the replay: follows them in the order of judgement, and resumes where it was stopped.

It runs outside the transaction of a verdict, in one process. A step counts verdicts and moves its place in one
transaction, so each verdict counts once. It stays SETTLED_S behind, because a verdict may be stored after later ones.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Delete, Table, delete, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.engine import Store
from cloud.store.retention import in_chunks
from cloud.store.review.grouping import moment_of
from cloud.store.schema import replay_buckets, replay_budgets, replay_days, replay_progress, samples, verdicts
from cloud.store.upsert import upsert
from cloud.thresholds.cells import (
    BINS,
    ROUTES,
    Buckets,
    add_packed,
    bins_of,
    empty_bank,
    empty_histogram,
    pack_bank,
    pack_histogram,
    unpack_bank,
)
from shared.samples import Decision

SETTLED_S = 15.0
STEP = 400  # verdicts of one transaction
PAUSE_S = 0.02  # between two of them
KEPT_DAYS = 35
MAX_SOURCES = 32  # of one device in one day; further ones are counted together, as OTHER_SOURCES
OTHER_SOURCES = ""
ENVELOPE_BYTES = 160  # of a message without its payload
DAY_S = 86_400.0
SourceDay: TypeAlias = tuple[str, int, str]
"""Device, day and source of a histogram."""
_MERGED_AT_ONCE = 200  # histograms in memory
_NAME = "verdicts"
_COLUMNS = (
    verdicts.c.number,
    verdicts.c.judged_at_s,
    verdicts.c.device_id,
    verdicts.c.source_id,
    verdicts.c.route,
    verdicts.c.decision,
    samples.c.edge_p_value,
    samples.c.captured_at_s,
    samples.c.received_at_s,
    samples.c.payload_bytes,
)
_PLACES = {route.value: place for place, route in enumerate(ROUTES)}


@dataclass(frozen=True, slots=True)
class Counted:
    """One judged sample. `cell`: its row in a histogram; `figures`: its share of the columns."""

    device_id: str
    source_id: str
    at_s: float
    day: int
    cell: int
    figures: tuple[int, int, int]


async def count_verdicts(store: Store, *, now_s: float | None = None) -> int:
    """Count all settled verdicts that are not counted yet; return their number. Raises StorageError."""
    now_s = time.time() if now_s is None else now_s
    total = 0
    while True:
        async with store.reading() as connection:
            place = await _progress(connection, now_s)
            rows = await _next(connection, place, now_s - SETTLED_S)
        if not rows:
            return total
        counted = _counted(rows, now_s)
        async with store.writing() as connection:
            if await _progress(connection, now_s) != place:
                return total  # another process has moved it
            await _add(connection, counted)
            last = {"name": _NAME, "judged_at_s": rows[-1].judged_at_s, "number": rows[-1].number}
            await upsert(connection, replay_progress, [last])
        total += len(rows)
        await asyncio.sleep(PAUSE_S if len(rows) == STEP else 0)


async def forget_old(store: Store, now_s: float) -> None:
    """Delete counts, and states of token buckets, that are older than KEPT_DAYS. Raises StorageError.

    A bucket of that age counts as full, and a new one begins full.
    """
    before = int(now_s // DAY_S) - KEPT_DAYS
    for table, is_old in (
        (replay_days, replay_days.c.day < before),
        (replay_budgets, replay_budgets.c.day < before),
        (replay_buckets, replay_buckets.c.at_s < before * DAY_S),
    ):
        await in_chunks(store, partial(_deletion, table, is_old))


def _deletion(table: Table, condition: ColumnElement[bool], rows: int) -> Delete:
    keys = list(table.primary_key)
    return delete(table).where(tuple_(*keys).in_(select(*keys).where(condition).limit(rows)))


async def _progress(connection: AsyncConnection, now_s: float) -> tuple[float, int]:
    """Return time and number of the last counted verdict; a new store begins with those that are kept."""
    columns = (replay_progress.c.judged_at_s, replay_progress.c.number)
    row = (await connection.execute(select(*columns).where(replay_progress.c.name == _NAME))).one_or_none()
    return (row.judged_at_s, row.number) if row is not None else ((now_s // DAY_S - KEPT_DAYS) * DAY_S, 0)


async def _next(connection: AsyncConnection, after: tuple[float, int], before_s: float) -> Sequence[Any]:
    key = tuple_(verdicts.c.judged_at_s, verdicts.c.number)
    query = (
        select(*_COLUMNS)
        .join(samples, samples.c.number == verdicts.c.number)
        .where(key > tuple_(*after), verdicts.c.judged_at_s < before_s)
        .order_by(verdicts.c.judged_at_s, verdicts.c.number)
        .limit(STEP)
    )
    return (await connection.execute(query)).all()


def _counted(rows: Sequence[Any], now_s: float) -> list[Counted]:
    """Return the rows as they count, in the order of their capture."""
    found = []
    for row, place in zip(rows, bins_of([row.edge_p_value for row in rows]).tolist(), strict=True):
        at_s = moment_of(row.captured_at_s, row.received_at_s)
        if not now_s - KEPT_DAYS * DAY_S < at_s < now_s + DAY_S:
            at_s = row.judged_at_s
        asking = row.decision != Decision.NORMAL.value
        figures = (1, int(asking), max(0, row.payload_bytes) + ENVELOPE_BYTES)
        cell = _PLACES.get(row.route, 0) * BINS + place
        found.append(Counted(row.device_id, row.source_id[:512], at_s, int(at_s // DAY_S), cell, figures))
    return sorted(found, key=lambda item: item.at_s)


async def _add(connection: AsyncConnection, counted: Sequence[Counted]) -> None:
    by_source = await _by_source(connection, counted)
    keys = sorted(by_source)
    for first in range(0, len(keys), _MERGED_AT_ONCE):
        await _merge(connection, {key: by_source[key] for key in keys[first : first + _MERGED_AT_ONCE]})
    await _replay_budgets(connection, counted)


async def _by_source(connection: AsyncConnection, counted: Sequence[Counted]) -> dict[SourceDay, list[Counted]]:
    """Return the samples by device, day and source; those of too many sources together."""
    days = sorted({(item.device_id, item.day) for item in counted})
    names: dict[tuple[str, int], set[str]] = {day: set() for day in days}
    columns = (replay_days.c.device_id, replay_days.c.day, replay_days.c.source_id)
    for device_id, day, source_id in await connection.execute(select(*columns).where(tuple_(*columns[:2]).in_(days))):
        names[device_id, day].add(source_id)
    found: dict[SourceDay, list[Counted]] = {}
    for item in counted:
        known = names[item.device_id, item.day]
        source_id = item.source_id if item.source_id in known or len(known) < MAX_SOURCES else OTHER_SOURCES
        known.add(source_id)
        found.setdefault((item.device_id, item.day, source_id), []).append(item)
    return found


async def _merge(connection: AsyncConnection, new: dict[SourceDay, list[Counted]]) -> None:
    """Add samples to the histograms of their sources and days."""
    key = tuple_(replay_days.c.device_id, replay_days.c.day, replay_days.c.source_id)
    histograms = {name: empty_histogram() for name in new}
    for device_id, day, source_id, cells in await connection.execute(select(replay_days).where(key.in_(list(new)))):
        add_packed(histograms[device_id, day, source_id], cells)
    for name, items in new.items():
        for item in items:
            histograms[name][item.cell] += item.figures
    rows = [
        {"device_id": device_id, "day": day, "source_id": source_id, "cells": pack_histogram(histogram)}
        for (device_id, day, source_id), histogram in histograms.items()
    ]
    await upsert(connection, replay_days, rows)


async def _replay_budgets(connection: AsyncConnection, counted: Sequence[Counted]) -> None:
    """Let the samples pass the token buckets of their devices, and count those that had a token."""
    device_ids = sorted({item.device_id for item in counted})
    days = sorted({(item.device_id, item.day) for item in counted})
    key = tuple_(replay_budgets.c.device_id, replay_budgets.c.day)
    banks = {day: empty_bank() for day in days}
    for device_id, day, cells in await connection.execute(select(replay_budgets).where(key.in_(days))):
        banks[device_id, day] = unpack_bank(cells)
    states = await connection.execute(select(replay_buckets).where(replay_buckets.c.device_id.in_(device_ids)))
    buckets = {name: Buckets(at_s, levels) for name, at_s, levels in states}
    for item in counted:
        bank = banks[item.device_id, item.day]
        passes = buckets.setdefault(item.device_id, Buckets()).spend(item.at_s)
        bank[:-1][passes] += item.figures
        bank[-1] += item.figures
    rows = [{"device_id": device_id, "day": day, "cells": pack_bank(bank)} for (device_id, day), bank in banks.items()]
    await upsert(connection, replay_budgets, rows)
    levels = [{"device_id": name, "at_s": each.at_s, "levels": each.levels()} for name, each in buckets.items()]
    await upsert(connection, replay_buckets, levels)
