"""Retention: delete expired rows in small batches, so that the writer is never blocked for long."""

import asyncio
import time

from sqlalchemy import Delete, delete, select

from cloud.store.engine import Store
from cloud.store.schema import events, payloads, samples, verdicts

CHUNK = 500
PAUSE_S = 0.05
_DAY_S = 86_400.0


async def remove_old(store: Store, *, payloads_days: float, verdicts_days: float, events_days: float) -> dict[str, int]:
    """Delete rows older than these days (0: never); return the number of deleted rows by kind.

    Samples that wait for their verdict are never deleted.
    """
    now_s = time.time()
    removed = {"events": 0, "payloads": 0, "verdicts": 0}
    if events_days:
        removed["events"] = await _in_chunks(store, _old_events(now_s - events_days * _DAY_S))
    if payloads_days:
        removed["payloads"] = await _in_chunks(store, _old_payloads(now_s - payloads_days * _DAY_S))
    if verdicts_days:
        removed["verdicts"] = await _in_chunks(store, _old_samples(now_s - verdicts_days * _DAY_S))
    return removed


def _old_events(before_s: float) -> Delete:
    old = select(events.c.cursor).where(events.c.created_at_s < before_s).order_by(events.c.cursor).limit(CHUNK)
    return delete(events).where(events.c.cursor.in_(old))


def _old_payloads(before_s: float) -> Delete:
    old = (
        select(payloads.c.number)
        .join(verdicts, verdicts.c.number == payloads.c.number)
        .where(verdicts.c.judged_at_s < before_s)
        .order_by(payloads.c.number)
        .limit(CHUNK)
    )
    return delete(payloads).where(payloads.c.number.in_(old))


def _old_samples(before_s: float) -> Delete:
    """Delete samples with their payloads, verdicts and maps (ON DELETE CASCADE)."""
    old = (
        select(verdicts.c.number).where(verdicts.c.judged_at_s < before_s).order_by(verdicts.c.judged_at_s).limit(CHUNK)
    )
    return delete(samples).where(samples.c.number.in_(old))


async def _in_chunks(store: Store, statement: Delete) -> int:
    total = 0
    while True:
        async with store.writing() as connection:
            count = (await connection.execute(statement)).rowcount
        total += count
        if count < CHUNK:
            return total
        await asyncio.sleep(PAUSE_S)
