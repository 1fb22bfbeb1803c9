"""Retention: delete expired rows and return their space to the disk, in steps that block writers only briefly."""

import asyncio
import time
from collections.abc import Callable
from functools import partial

from sqlalchemy import Delete, delete, select

from cloud.store.engine import Store
from cloud.store.schema import events, notices, payloads, samples, verdicts
from shared.pacing import Pace

STEP_S = 0.05  # aim for one transaction; a payload may be megabytes, so rows alone do not bound it
PAUSE_S = 0.05
FIRST_ROWS, MOST_ROWS = 16, 500
_DAY_S = 86_400.0


async def remove_old(store: Store, *, payloads_days: float, verdicts_days: float, events_days: float) -> dict[str, int]:
    """Delete rows older than these days (0: never); return the number of deleted rows by kind.

    Samples that wait for their verdict are never deleted. The store returns the space afterwards. Raises StorageError.
    """
    now_s = time.time()
    removed = {"events": 0, "notices": 0, "payloads": 0, "verdicts": 0}
    if events_days:
        removed["events"] = await in_chunks(store, partial(_old_events, now_s - events_days * _DAY_S))
        removed["notices"] = await in_chunks(store, partial(_closed_notices, now_s - events_days * _DAY_S))
    if payloads_days:
        removed["payloads"] = await in_chunks(store, partial(_old_payloads, now_s - payloads_days * _DAY_S))
    if verdicts_days:
        removed["verdicts"] = await in_chunks(store, partial(_old_samples, now_s - verdicts_days * _DAY_S))
    await store.return_space()
    return removed


def _old_events(before_s: float, rows: int) -> Delete:
    old = select(events.c.cursor).where(events.c.created_at_s < before_s).order_by(events.c.cursor).limit(rows)
    return delete(events).where(events.c.cursor.in_(old))


def _closed_notices(before_s: float, rows: int) -> Delete:
    old = select(notices.c.number).where(notices.c.closed_at_s < before_s).order_by(notices.c.number).limit(rows)
    return delete(notices).where(notices.c.number.in_(old))


def _old_payloads(before_s: float, rows: int) -> Delete:
    old = (
        select(payloads.c.number)
        .join(verdicts, verdicts.c.number == payloads.c.number)
        .where(verdicts.c.judged_at_s < before_s)
        .order_by(payloads.c.number)
        .limit(rows)
    )
    return delete(payloads).where(payloads.c.number.in_(old))


def _old_samples(before_s: float, rows: int) -> Delete:
    """Delete samples with their payloads, verdicts and maps (ON DELETE CASCADE)."""
    old = (
        select(verdicts.c.number).where(verdicts.c.judged_at_s < before_s).order_by(verdicts.c.judged_at_s).limit(rows)
    )
    return delete(samples).where(samples.c.number.in_(old))


async def in_chunks(store: Store, statement: Callable[[int], Delete]) -> int:
    """Run `statement` for a number of rows until it finds fewer."""
    pace, total = Pace(STEP_S, FIRST_ROWS, MOST_ROWS), 0
    while True:
        rows = pace.size
        async with store.writing() as connection:
            started_s = time.perf_counter()
            count = (await connection.execute(statement(rows))).rowcount
        pace.measured(time.perf_counter() - started_s)
        total += count
        if count < rows:
            return total
        await asyncio.sleep(PAUSE_S)
