"""Comparisons of two bundles on stored samples: their rows, and who judges them.

One comparison is judged at a time. A process claims it, and renews its claim until it ends; the next process goes on
with the samples that are left after a claim has run out, by the clock of the database. After MAX_ATTEMPTS processes
that judged nothing the comparison counts as lost.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store import audit
from cloud.store.database_clock import database_now_s
from cloud.store.engine import Store
from cloud.store.registry import entry_of
from cloud.store.schema import comparison_samples, comparisons
from shared.errors import BundleError

CLAIM_S = 30.0
MAX_ATTEMPTS = 3
MAX_SAMPLES, MAX_UNFINISHED, MAX_KEPT = 2000, 10, 100
MAX_REASON = 1000


class ComparisonStatus(StrEnum):
    """Status of a comparison."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"  # the processes that judged it ended


UNFINISHED = (ComparisonStatus.WAITING, ComparisonStatus.RUNNING)


class SampleChoice(StrEnum):
    """Samples of a comparison: the newest ones of a span, or those with a label."""

    NEWEST = "newest"
    LABELLED = "labelled"


@dataclass(frozen=True, slots=True)
class AskedSamples:
    """Samples to judge: at most `size`, judged before within a span; None leaves an end open."""

    choice: SampleChoice
    size: int
    since_s: float | None = None
    until_s: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison. `samples`: their number, None until they are chosen; `judged` of them have both answers."""

    number: int
    bundle_name: str
    first_bundle_id: str
    second_bundle_id: str
    asked: AskedSamples
    actor: str
    created_at_s: float
    status: ComparisonStatus
    reason: str
    started_at_s: float | None
    ended_at_s: float | None
    runner: str
    runner_until_s: float
    attempts: int
    samples: int | None
    judged: int
    judging_s: float
    waits_for_live: bool
    false_alarm_rate: float | None

    @property
    def remaining_s(self) -> float | None:
        """Seconds until the last sample is judged at the speed so far; None while unknown."""
        if self.status is not ComparisonStatus.RUNNING or not self.judged or self.samples is None:
            return None
        return (self.samples - self.judged) * self.judging_s / self.judged


class TooManyComparisonsError(BundleError):
    """Comparisons that are not finished are as many as may wait."""


async def start(
    store: Store, first_bundle_id: str, second_bundle_id: str, asked: AskedSamples, *, actor: str, now_s: float
) -> Comparison:
    """Put a comparison into the queue and return it.

    Raises BundleError unless both are different bundles of one name, TooManyComparisonsError beyond MAX_UNFINISHED.
    """
    async with store.writing() as connection:
        found = [await entry_of(connection, bundle_id) for bundle_id in (first_bundle_id, second_bundle_id)]
        for bundle_id, entry in zip((first_bundle_id, second_bundle_id), found, strict=True):
            if entry is None:
                raise BundleError(f"{bundle_id[:128]!r} is not in the registry: publish it first.")
        names = {entry.name for entry in found if entry is not None}
        if len(names) != 1 or first_bundle_id == second_bundle_id:
            raise BundleError("Choose two different bundles of one name.")
        unfinished = select(func.count()).where(comparisons.c.status.in_(UNFINISHED))
        if (await connection.execute(unfinished)).scalar_one() >= MAX_UNFINISHED:
            raise TooManyComparisonsError(
                f"{MAX_UNFINISHED} comparisons wait already: wait for the end of one, or cancel one."
            )
        values = {
            "bundle_name": names.pop(),
            "first_bundle_id": first_bundle_id,
            "second_bundle_id": second_bundle_id,
            "asked": asdict(asked),
            "actor": actor,
            "created_at_s": now_s,
            "status": ComparisonStatus.WAITING.value,
            "reason": "",
            "runner": "",
            "runner_until_s": 0.0,
            "attempts": 0,
            "judged": 0,
            "judging_s": 0.0,
            "waits_for_live": False,
        }
        added = await connection.execute(insert(comparisons).values(values).returning(comparisons.c.number))
        number = added.scalar_one()
        details = {"second": second_bundle_id, "number": number, "samples": asdict(asked)}
        await audit.record(connection, actor, audit.AuditAction.COMPARISON_STARTED, first_bundle_id, **details)
        await _remove_oldest(connection)
        started = await one_comparison(connection, number)
        assert started is not None
    return started


async def cancel(store: Store, number: int, *, actor: str, now_s: float) -> Comparison | None:
    """Cancel a comparison that is not finished, and return it; None for an unknown one.

    Raises BundleError for one that has ended.
    """
    async with store.writing() as connection:
        found = await one_comparison(connection, number)
        if found is None:
            return None
        if found.status not in UNFINISHED:
            raise BundleError(f"This comparison is {found.status} already.")
        await _end(connection, number, ComparisonStatus.CANCELLED, "", now_s)
        action = audit.AuditAction.COMPARISON_CANCELLED
        await audit.record(connection, actor, action, found.first_bundle_id, number=number)
        return await one_comparison(connection, number)


async def claim(store: Store, runner: str, now_s: float, number: int | None = None) -> Comparison | None:
    """Return the next comparison to judge, claimed by `runner`; None while there is none, or another one is judged.

    `now_s` is the begin of a comparison that begins, and the end of a lost one. `number`: the only one to claim; None
    for the oldest.
    """
    wanted: list[ColumnElement[bool]] = [comparisons.c.status.in_(UNFINISHED)]
    if number is not None:
        wanted.append(comparisons.c.number == number)
    async with store.reading() as connection:
        if not (await connection.execute(select(1).where(*wanted).limit(1))).first():
            return None
    async with store.writing() as connection:
        clock_s = database_now_s(connection)
        others = comparisons.c.runner != runner
        if (await connection.execute(select(1).where(*_is_held(clock_s), others).limit(1))).first():
            return None
        query = select(comparisons).where(*wanted).order_by(comparisons.c.number)
        waiting = []
        for found in [_comparison(row) for row in (await connection.execute(query)).mappings()]:
            if found.attempts >= MAX_ATTEMPTS:
                reason = (
                    f"The process that judged it ended {found.attempts} times in a row: see the log, then try again."
                )
                await _end(connection, found.number, ComparisonStatus.LOST, reason, now_s)
            else:
                waiting.append(found)
        if not waiting:
            return None
        first = waiting[0]
        values = {
            "status": ComparisonStatus.RUNNING.value,
            "runner": runner,
            "runner_until_s": clock_s + CLAIM_S,
            "attempts": first.attempts + 1,
            "started_at_s": first.started_at_s or now_s,
        }
        await connection.execute(update(comparisons).where(comparisons.c.number == first.number).values(values))
        return await one_comparison(connection, first.number)


async def is_one_judged(connection: AsyncConnection) -> bool:
    """Return whether a process has the claim on a comparison, and its claim has not run out."""
    query = select(1).where(*_is_held(database_now_s(connection))).limit(1)
    return (await connection.execute(query)).first() is not None


async def renew(store: Store, number: int, runner: str) -> bool:
    """Renew the claim of a process; return whether it still may judge: not after a cancellation."""
    async with store.writing() as connection:
        until_s = database_now_s(connection) + CLAIM_S
        renewed = update(comparisons).where(*_is_own(number, runner)).values(runner_until_s=until_s)
        return bool((await connection.execute(renewed)).rowcount)


async def may_judge(connection: AsyncConnection, number: int, runner: str) -> bool:
    """Return whether a process still judges a comparison: no other one has claimed it, and nobody has ended it."""
    query = select(comparisons.c.number).where(*_is_own(number, runner))
    return (await connection.execute(query)).first() is not None


async def finish(store: Store, number: int, runner: str, status: ComparisonStatus, reason: str, now_s: float) -> None:
    """End a comparison that this process judges, if it is still running."""
    async with store.writing() as connection:
        if await may_judge(connection, number, runner):
            await _end(connection, number, status, reason, now_s)


async def one_comparison(connection: AsyncConnection, number: int) -> Comparison | None:
    """Return a comparison by its number, or None."""
    query = select(comparisons).where(comparisons.c.number == number)
    row = (await connection.execute(query)).mappings().one_or_none()
    return _comparison(row) if row is not None else None


async def comparison_page(
    connection: AsyncConnection, *, before: int | None = None, size: int = 50
) -> list[Comparison]:
    """Return the newest `size` comparisons, or the next ones older than the number `before`."""
    query = select(comparisons).order_by(comparisons.c.number.desc()).limit(size)
    if before is not None:
        query = query.where(comparisons.c.number < before)
    return [_comparison(row) for row in (await connection.execute(query)).mappings()]


def _is_held(clock_s: ColumnElement[float]) -> tuple[ColumnElement[bool], ...]:
    return comparisons.c.status == ComparisonStatus.RUNNING.value, comparisons.c.runner_until_s > clock_s


def _is_own(number: int, runner: str) -> tuple[ColumnElement[bool], ...]:
    running = comparisons.c.status == ComparisonStatus.RUNNING.value
    return comparisons.c.number == number, comparisons.c.runner == runner, running


async def _end(connection: AsyncConnection, number: int, status: ComparisonStatus, reason: str, now_s: float) -> None:
    values = {"status": status.value, "reason": reason[:MAX_REASON], "ended_at_s": now_s, "waits_for_live": False}
    await connection.execute(update(comparisons).where(comparisons.c.number == number).values(values))


async def _remove_oldest(connection: AsyncConnection) -> None:
    """Delete finished comparisons beyond the newest MAX_KEPT."""
    ended = select(comparisons.c.number).where(comparisons.c.status.not_in(UNFINISHED))
    old = ended.order_by(comparisons.c.number.desc()).offset(MAX_KEPT).limit(MAX_KEPT)
    numbers = (await connection.execute(old)).scalars().all()
    if numbers:
        for table, column in (
            (comparison_samples, comparison_samples.c.comparison),
            (comparisons, comparisons.c.number),
        ):
            await connection.execute(delete(table).where(column.in_(numbers)))


def _comparison(row: Mapping[Any, Any]) -> Comparison:
    asked = row["asked"]
    values = dict(row) | {
        "status": ComparisonStatus(row["status"]),
        "asked": AskedSamples(SampleChoice(asked["choice"]), asked["size"], asked["since_s"], asked["until_s"]),
    }
    return Comparison(**values)
