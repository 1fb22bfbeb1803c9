"""Retention: delete expired rows and return their space to the disk, in steps that block writers only briefly."""

import asyncio
import time
from collections.abc import Callable
from functools import partial

from sqlalchemy import Delete, delete, select

from cloud.store.engine import INCREMENTAL, Store
from cloud.store.schema import events, payloads, samples, verdicts
from shared.logs import EventLog
from shared.pacing import Pace

STEP_S = 0.05  # aim for one transaction; a payload may be megabytes, so rows alone do not bound it
PAUSE_S = 0.05
FIRST_ROWS, MOST_ROWS = 16, 500
FIRST_PAGES, MOST_PAGES = 64, 4096
_DAY_S = 86_400.0

_LOG = EventLog("retention")


async def remove_old(store: Store, *, payloads_days: float, verdicts_days: float, events_days: float) -> dict[str, int]:
    """Delete rows older than these days (0: never); return the number of deleted rows by kind.

    Samples that wait for their verdict are never deleted. Free pages are returned to the disk afterwards, and the
    write-ahead log is emptied. Raises StorageError.
    """
    now_s = time.time()
    removed = {"events": 0, "payloads": 0, "verdicts": 0}
    if events_days:
        removed["events"] = await _in_chunks(store, partial(_old_events, now_s - events_days * _DAY_S))
    if payloads_days:
        removed["payloads"] = await _in_chunks(store, partial(_old_payloads, now_s - payloads_days * _DAY_S))
    if verdicts_days:
        removed["verdicts"] = await _in_chunks(store, partial(_old_samples, now_s - verdicts_days * _DAY_S))
    await give_back(store)
    return removed


async def give_back(store: Store) -> int:
    """Return the free pages of the file to the disk and empty the log; return the number of pages.

    A file that could not be converted keeps its size: new samples fill its free pages. Raises StorageError.
    """
    pace = Pace(STEP_S, FIRST_PAGES, MOST_PAGES)
    first = free = await _free_pages(store)
    while free:
        pace.measured(await store.give_back(pace.size))
        before, free = free, await _free_pages(store)
        if free >= before:  # new deletions are for the next run
            break
        await asyncio.sleep(PAUSE_S)
    emptied = await store.truncate_log()
    if first:
        _LOG.info("disk_given_back", pages=first - free, longest_step_s=pace.longest_s, log_emptied=emptied)
    return first - free


async def _free_pages(store: Store) -> int:
    """Return the number of free pages that the file can return."""
    async with store.reading() as connection:
        mode = (await connection.exec_driver_sql("PRAGMA auto_vacuum")).scalar_one()
        return (
            int((await connection.exec_driver_sql("PRAGMA freelist_count")).scalar_one()) if mode == INCREMENTAL else 0
        )


def _old_events(before_s: float, rows: int) -> Delete:
    old = select(events.c.cursor).where(events.c.created_at_s < before_s).order_by(events.c.cursor).limit(rows)
    return delete(events).where(events.c.cursor.in_(old))


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


async def _in_chunks(store: Store, statement: Callable[[int], Delete]) -> int:
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
