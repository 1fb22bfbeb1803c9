"""Retention: delete expired rows and return their space to the disk, in steps that block writers only briefly.

Each step finds its rows as a reader, in the order of a key and after those of the step before, and deletes them by
their keys. So a writer waits for the deletion alone, however many rows are read or kept.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from sqlalchemy import Column, Delete, Insert, Select, Table, delete, exists, insert, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.engine import Store
from cloud.store.schema import dirty_segments, events, labels, notices, payloads, samples, verdicts
from shared.pacing import Pace

PAUSE_S = 0.02
FIRST_ROWS, MOST_ROWS = 16, 500
_DAY_S = 86_400.0
Key: TypeAlias = tuple[Any, ...]
"""Values of the key of a row in the order of a walk."""


@dataclass(frozen=True, slots=True)
class Step:
    """Keys of the rows that a step deletes, and the place where the next one goes on; None: there is no next."""

    keys: Sequence[int]
    next_after: Key | None


Find: TypeAlias = Callable[[AsyncConnection, Key, int], Awaitable[Step]]
"""Function that reads the rows after a place, up to a number of rows."""


async def remove_old(
    store: Store, *, payloads_days: float, verdicts_days: float, events_days: float, labelled_days: float = 0.0
) -> dict[str, int]:
    """Delete rows older than these days (0: never); return the number of deleted rows by kind.

    A sample with a label stays whole until both `verdicts_days` and `labelled_days` have passed. Samples that wait for
    their verdict are never deleted. A store that drops rows together may keep some for `Store.keeps_longer` of their
    days longer. It returns the space afterwards. Raises StorageError.
    """
    now_s = time.time()
    removed = {"events": 0, "notices": 0, "payloads": 0, "verdicts": 0}
    if events_days:
        before_s = now_s - events_days * _DAY_S
        removed["events"] = await delete_found(store, events.c.cursor, partial(_old_events, before_s), (0,))
        removed["notices"] = await in_chunks(store, partial(_closed_notices, before_s))
    limits = {"payloads": payloads_days, "verdicts": verdicts_days}
    removed |= await store.drop_expired({name: now_s - days * _DAY_S for name, days in limits.items() if days})
    late = _DAY_S * (1 + store.keeps_longer)
    if payloads_days:
        found = partial(_old_payloads, now_s - payloads_days * late)
        removed["payloads"] += await delete_found(store, payloads.c.number, found, (0,), keep_labelled=True)
    if verdicts_days:
        found = partial(_old_verdicts, now_s - verdicts_days * late)
        removed["verdicts"] += await delete_found(store, samples.c.number, found, (-1.0, 0), keep_labelled=True)
    if verdicts_days and labelled_days:
        found = partial(_old_labelled, now_s - max(verdicts_days, labelled_days) * _DAY_S)
        removed["verdicts"] += await delete_found(store, samples.c.number, found, (0,))
    await store.return_space()
    return removed


async def delete_found(
    store: Store,
    key: Column[Any],
    find: Find,
    after: Key,
    *,
    keep_labelled: bool = False,
    cleaned: Sequence[Table] = (),
) -> int:
    """Delete the rows whose `key` each step of `find` returns; return their number.

    Payloads, verdicts, maps and labels go with their samples (ON DELETE CASCADE). With `keep_labelled` the key is that
    of a sample, and a label given meanwhile keeps its row. Segments with values of these rows in the tables `cleaned`
    become dirty; otherwise the bytes stay while the segment is worth keeping.
    """
    pace, total, place = Pace(store.step_s, FIRST_ROWS, MOST_ROWS), 0, after
    while True:
        async with store.reading() as connection:
            step = await find(connection, place, pace.size)
        if step.keys:
            statement = delete(key.table).where(key.in_(step.keys))
            if keep_labelled:
                statement = statement.where(~_labelled(key))
            total += await _run(store, statement, pace, [_dirty(table, step.keys) for table in cleaned])
            await store.rest(PAUSE_S)
        else:
            pace.measured(0.0)
        if step.next_after is None:
            return total
        place = step.next_after


def _dirty(table: Table, numbers: Sequence[int]) -> Insert:
    """Return the statement that marks the segments of these rows as dirty."""
    segment_id = table.c.segment_id
    new = segment_id.not_in(select(dirty_segments.c.segment_id))
    found = select(segment_id).where(table.c.number.in_(numbers), segment_id.is_not(None), new).distinct()
    return insert(dirty_segments).from_select(["segment_id"], found)


def _labelled(number: Column[Any]) -> Any:
    return exists().where(labels.c.sample_number == number)


async def _old_events(before_s: float, connection: AsyncConnection, after: Key, rows: int) -> Step:
    query = select(events.c.cursor, events.c.created_at_s).where(events.c.cursor > after[0])
    found = (await connection.execute(query.order_by(events.c.cursor).limit(rows))).all()
    old = [row.cursor for row in found if row.created_at_s < before_s]
    return Step(old, (found[-1].cursor,) if old and len(found) == rows else None)


def payloads_after(number: int, rows: int) -> Select[Any]:
    """Return the query for the next payloads: number, time of arrival, time of the verdict, and whether labelled.

    Each table has the bound: PostgreSQL would read the others from their first row on.
    """
    return (
        select(payloads.c.number, samples.c.received_at_s, verdicts.c.judged_at_s, _labelled(payloads.c.number))
        .join(samples, (samples.c.number == payloads.c.number) & (samples.c.number > number))
        .outerjoin(verdicts, (verdicts.c.number == payloads.c.number) & (verdicts.c.number > number))
        .where(payloads.c.number > number)
        .order_by(payloads.c.number)
        .limit(rows)
    )


async def _old_payloads(before_s: float, connection: AsyncConnection, after: Key, rows: int) -> Step:
    """Find old payloads in the order of arrival; the first step without an old sample is the last."""
    keys, has_old, last, count = [], False, after, 0
    query = payloads_after(after[0], rows)
    for number, received_at_s, judged_at_s, is_labelled in await connection.execute(query):
        is_old = judged_at_s is not None and judged_at_s < before_s
        has_old = has_old or is_old or received_at_s < before_s
        if is_old and not is_labelled:
            keys.append(number)
        last, count = (number,), count + 1
    return Step(keys, last if has_old and count == rows else None)


async def _old_verdicts(before_s: float, connection: AsyncConnection, after: Key, rows: int) -> Step:
    place = tuple_(verdicts.c.judged_at_s, verdicts.c.number)
    query: Select[Any] = (
        select(verdicts.c.judged_at_s, verdicts.c.number, _labelled(verdicts.c.number))
        .where(verdicts.c.judged_at_s < before_s, place > tuple_(*after))
        .order_by(verdicts.c.judged_at_s, verdicts.c.number)
        .limit(rows)
    )
    found = (await connection.execute(query)).all()
    keys = [number for _, number, is_labelled in found if not is_labelled]
    return Step(keys, (found[-1].judged_at_s, found[-1].number) if len(found) == rows else None)


async def _old_labelled(before_s: float, connection: AsyncConnection, after: Key, rows: int) -> Step:
    query = (
        select(labels.c.sample_number, verdicts.c.judged_at_s)
        .distinct()
        .outerjoin(verdicts, verdicts.c.number == labels.c.sample_number)
        .where(labels.c.sample_number > after[0])
        .order_by(labels.c.sample_number)
        .limit(rows)
    )
    found = (await connection.execute(query)).all()
    old = [number for number, judged_at_s in found if judged_at_s is not None and judged_at_s < before_s]
    return Step(old, (found[-1].sample_number,) if len(found) == rows else None)


def _closed_notices(before_s: float, rows: int) -> Delete:
    old = select(notices.c.number).where(notices.c.closed_at_s < before_s).order_by(notices.c.number).limit(rows)
    return delete(notices).where(notices.c.number.in_(old))


async def in_chunks(store: Store, statement: Callable[[int], Delete]) -> int:
    """Run `statement` for a number of rows until it finds fewer; each run finds its rows by an index alone."""
    pace, total = Pace(store.step_s, FIRST_ROWS, MOST_ROWS), 0
    while True:
        rows = pace.size
        count = await _run(store, statement(rows), pace)
        total += count
        if count:
            await store.rest(PAUSE_S)
        if count < rows:
            return total


async def _run(store: Store, statement: Delete, pace: Pace, before: Sequence[Insert] = ()) -> int:
    """Run statements as one transaction; return the number of deleted rows, and tell how long writers waited."""
    async with store.deleting() as connection:
        started_s = time.perf_counter()
        for insertion in before:
            await connection.execute(insertion)
        count = (await connection.execute(statement)).rowcount
    pace.measured(time.perf_counter() - started_s)
    return count
