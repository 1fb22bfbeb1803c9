"""Training jobs: durable rows with a state, a claim of the process that runs one, progress, log and result.

A claim ends CLAIM_S after its process last renewed it, by the clock of the database. Another process then takes the job
up again, so a killed service or a killed training loses no job. Each claim counts as an attempt.
"""

import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store import audit
from cloud.store.audit import AuditAction
from cloud.store.database_clock import database_now_s
from cloud.store.engine import Store
from cloud.store.schema import training_jobs
from shared.errors import DataError

CLAIM_S = 30.0  # longer than a store that is locked keeps a renewal waiting
MAX_WAITING = 20  # jobs that wait or run
MAX_LOG_LINES, MAX_LINE_CHARACTERS, MAX_REASON_CHARACTERS = 300, 400, 1024


class JobState(StrEnum):
    """State of a job; the last three are its ends."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        """Whether the job has ended."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class JobRefusedError(DataError):
    """The state of a job, or the number of jobs, does not allow this now."""


class Order(StrEnum):
    """Answer to the process that runs a job: go on, end the cancelled job, or drop it as another process has it."""

    GO_ON = "go_on"
    CANCEL = "cancel"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to queue: `data` names the samples, `sites` are those of the account that starts it."""

    data: Mapping[str, Any]
    options: Mapping[str, Any]
    sites: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobProgress:
    """Stage, the share of it that is done (0 to 1), its remaining seconds (None: unknown), and the newest log lines."""

    stage: str
    share: float
    remaining_s: float | None = None
    log: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One job. `log`: the newest lines, each with its time; `attempts`: how often it was begun."""

    number: int
    job_id: str
    created_by: str
    created_at_s: float
    sites: tuple[str, ...]
    data: dict[str, Any]
    options: dict[str, Any]
    state: JobState
    cancel_requested: bool
    attempts: int
    started_at_s: float | None
    ended_at_s: float | None
    stage: str
    share: float
    remaining_s: float | None
    reason: str
    log: tuple[tuple[float, str], ...] = ()
    result: dict[str, Any] | None = None
    published: dict[str, Any] | None = field(default=None)

    def is_visible_to(self, sites: Collection[str]) -> bool:
        """Return whether an account of these sites (none: of all) sees the job: its data is of these sites alone."""
        return not sites or (bool(self.sites) and set(self.sites) <= set(sites))


async def add_job(store: Store, new: NewJob, actor: str) -> TrainingJob:
    """Queue a job. Raises JobRefusedError beyond MAX_WAITING jobs, StorageError."""
    job_id = secrets.token_hex(8)
    values = {
        "job_id": job_id,
        "created_by": actor,
        "created_at_s": time.time(),
        "sites": list(new.sites),
        "data": dict(new.data),
        "options": dict(new.options),
        "state": JobState.QUEUED.value,
        "log": [],
    }
    async with store.writing() as connection:
        waiting = select(func.count()).select_from(training_jobs).where(_is_open())
        if (await connection.execute(waiting)).scalar_one() >= MAX_WAITING:
            raise JobRefusedError(
                f"{MAX_WAITING} jobs wait or run, the largest number: cancel one, or wait for an end."
            )
        await connection.execute(insert(training_jobs).values(values))
        details = {"name": new.options.get("name", ""), "data": dict(new.data)}
        await audit.record(connection, actor, AuditAction.TRAINING_STARTED, job_id, **details)
        made = await find_job(connection, job_id)
    assert made is not None
    return made


async def find_job(connection: AsyncConnection, job_id: str) -> TrainingJob | None:
    """Return a job with its log, or None."""
    row = (await connection.execute(select(training_jobs).where(_is(job_id)))).mappings().one_or_none()
    return _job(row) if row is not None else None


async def job_page(
    connection: AsyncConnection, *, before: int | None = None, size: int = 50, sites: Collection[str] = ()
) -> list[TrainingJob]:
    """Return the newest `size` jobs that an account of these sites sees, or the next ones older than number `before`.

    Without their logs.
    """
    columns = [column for column in training_jobs.c if column.name != "log"]
    found: list[TrainingJob] = []
    while len(found) < size:
        query = select(*columns).order_by(training_jobs.c.number.desc()).limit(size)
        if before is not None:
            query = query.where(training_jobs.c.number < before)
        jobs = [_job(row) for row in (await connection.execute(query)).mappings()]
        found += [job for job in jobs if job.is_visible_to(sites)]
        if len(jobs) < size:
            break
        before = jobs[-1].number
    return found[:size]


async def claim_next(store: Store, claimant: str, max_attempts: int) -> TrainingJob | None:
    """Claim the oldest job that waits, or whose process has ended; None if there is none. Raises StorageError.

    A job that was begun `max_attempts` times without an end fails, and one that somebody cancelled ends.
    """
    async with store.reading() as connection:  # mostly there is none, and writers shall not wait for that
        if await _first_free(connection) is None:
            return None
    async with store.writing() as connection:
        while True:
            job = await _first_free(connection)
            if job is None:
                return None
            if job.cancel_requested:
                await _end(connection, job.job_id, JobState.CANCELLED, "cancelled")
            elif job.attempts >= max_attempts:
                reason = job.reason or "the process that ran it ended, as in a restart of the service"
                text = f"begun {job.attempts} times without an end, the largest number: {reason}"
                await _end(connection, job.job_id, JobState.FAILED, text)
            else:
                break
        values = {
            "state": JobState.RUNNING.value,
            "attempts": job.attempts + 1,
            "claimant": claimant,
            "claim_until_s": database_now_s(connection) + CLAIM_S,
            "started_at_s": time.time(),
            "stage": "",
            "share": 0.0,
            "remaining_s": None,
        }
        await connection.execute(update(training_jobs).where(_is(job.job_id)).values(values))
        return await find_job(connection, job.job_id)


async def _first_free(connection: AsyncConnection) -> TrainingJob | None:
    """Return the oldest job that waits, or whose claim has run out."""
    ended = training_jobs.c.claim_until_s <= database_now_s(connection)
    free = (training_jobs.c.state == JobState.QUEUED.value) | (
        (training_jobs.c.state == JobState.RUNNING.value) & ended
    )
    query = select(training_jobs).where(free).order_by(training_jobs.c.number).limit(1)
    row = (await connection.execute(query)).mappings().one_or_none()
    return _job(row) if row is not None else None


async def renew(store: Store, job_id: str, claimant: str, progress: JobProgress) -> Order:
    """Renew a claim, store the progress, and return what to do. Raises StorageError."""
    async with store.writing() as connection:
        query = select(training_jobs.c.cancel_requested).where(_is(job_id), _is_own(claimant))
        cancelled = (await connection.execute(query)).scalar_one_or_none()
        if cancelled is None:
            return Order.LOST
        values = {
            "claim_until_s": database_now_s(connection) + CLAIM_S,
            "stage": progress.stage[:64],
            "share": min(max(progress.share, 0.0), 1.0),
            "remaining_s": progress.remaining_s,
            "log": bounded_log(progress.log),
        }
        await connection.execute(update(training_jobs).where(_is(job_id)).values(values))
    return Order.CANCEL if cancelled else Order.GO_ON


async def is_cancelled(connection: AsyncConnection, job_id: str) -> bool:
    """Return whether somebody asked for the end of a job, or removed it."""
    query = select(training_jobs.c.cancel_requested).where(_is(job_id))
    return (await connection.execute(query)).scalar_one_or_none() is not False


async def end_job(
    store: Store,
    job_id: str,
    claimant: str,
    state: JobState,
    *,
    reason: str = "",
    result: Mapping[str, Any] | None = None,
    log: Sequence[tuple[float, str]] = (),
) -> bool:
    """End a job of this claimant; return False if it is no longer its own. Raises StorageError."""
    async with store.writing() as connection:
        query = select(training_jobs.c.number).where(_is(job_id), _is_own(claimant))
        if (await connection.execute(query)).scalar_one_or_none() is None:
            return False
        more = {"result": dict(result) if result is not None else None, "log": bounded_log(log)}
        await _end(connection, job_id, state, reason, **more)
    return True


async def give_back(store: Store, job_id: str, claimant: str, reason: str, *, counts: bool) -> bool:
    """Queue a job again whose process ends; the attempt is not counted unless `counts`. Raises StorageError."""
    async with store.writing() as connection:
        values: dict[str, Any] = {"state": JobState.QUEUED.value, "claimant": None, "claim_until_s": None}
        values |= {"stage": "", "share": 0.0, "remaining_s": None, "reason": reason[:MAX_REASON_CHARACTERS]}
        if not counts:
            values["attempts"] = training_jobs.c.attempts - 1
        done = await connection.execute(update(training_jobs).where(_is(job_id), _is_own(claimant)).values(values))
    return bool(done.rowcount)


async def cancel_job(store: Store, job_id: str, actor: str) -> TrainingJob | None:
    """Cancel a job: at once while it waits, within seconds while it runs; None for an unknown one.

    Raises JobRefusedError for one that is over, StorageError.
    """
    async with store.writing() as connection:
        job = await find_job(connection, job_id)
        if job is None:
            return None
        if job.state.is_over:
            raise JobRefusedError(f"The job is over: it is {job.state}.")
        if job.state is JobState.QUEUED:
            await _end(connection, job_id, JobState.CANCELLED, "cancelled")
        await connection.execute(update(training_jobs).where(_is(job_id)).values(cancel_requested=True))
        if not job.cancel_requested:
            await audit.record(connection, actor, AuditAction.TRAINING_CANCELLED, job_id)
        return await find_job(connection, job_id)


async def remove_job(store: Store, job_id: str, actor: str) -> TrainingJob | None:
    """Remove a job that is over, and return it; None for an unknown one. Its files are the caller's.

    Raises JobRefusedError for one that waits or runs, StorageError.
    """
    async with store.writing() as connection:
        job = await find_job(connection, job_id)
        if job is None:
            return None
        if not job.state.is_over:
            raise JobRefusedError(f"The job is {job.state}: cancel it first.")
        await connection.execute(delete(training_jobs).where(_is(job_id)))
        await audit.record(connection, actor, AuditAction.TRAINING_REMOVED, job_id, name=job.options.get("name", ""))
    return job


async def note_published(store: Store, job_id: str, published: Mapping[str, Any], actor: str) -> None:
    """Store what became of the bundle of a job. Raises StorageError."""
    async with store.writing() as connection:
        await connection.execute(update(training_jobs).where(_is(job_id)).values(published=dict(published)))
        await audit.record(connection, actor, AuditAction.TRAINING_PUBLISHED, job_id, **published)


async def note_upload(store: Store, upload_id: str, actor: str, *, removed: bool = False) -> None:
    """Add an entry to the audit log for files that were uploaded or removed. Raises StorageError."""
    action = AuditAction.UPLOAD_REMOVED if removed else AuditAction.UPLOAD_MADE
    async with store.writing() as connection:
        await audit.record(connection, actor, action, upload_id)


async def jobs_ended_before(connection: AsyncConnection, before_s: float, limit: int = 50) -> list[str]:
    """Return the ids of jobs that ended before a time, oldest first."""
    query = select(training_jobs.c.job_id).where(training_jobs.c.ended_at_s < before_s)
    return list((await connection.execute(query.order_by(training_jobs.c.number).limit(limit))).scalars())


async def known_jobs(connection: AsyncConnection) -> list[TrainingJob]:
    """Return all jobs without their logs, newest first; retention bounds their number."""
    columns = [column for column in training_jobs.c if column.name not in ("log", "result")]
    query = select(*columns).order_by(training_jobs.c.number.desc())
    return [_job(row) for row in (await connection.execute(query)).mappings()]


def bounded_log(lines: Sequence[tuple[float, str]]) -> list[list[float | str]]:
    """Return the newest lines of a log as JSON values, each of at most MAX_LINE_CHARACTERS."""
    return [[at_s, text[:MAX_LINE_CHARACTERS]] for at_s, text in lines[-MAX_LOG_LINES:]]


async def _end(connection: AsyncConnection, job_id: str, state: JobState, reason: str, **more: Any) -> None:
    values = {"state": state.value, "reason": reason[:MAX_REASON_CHARACTERS], "ended_at_s": time.time(), **more}
    values |= {"claimant": None, "claim_until_s": None, "remaining_s": None}
    await connection.execute(update(training_jobs).where(_is(job_id)).values(values))


def _is(job_id: str) -> ColumnElement[bool]:
    return training_jobs.c.job_id == job_id


def _is_own(claimant: str) -> ColumnElement[bool]:
    return (training_jobs.c.claimant == claimant) & (training_jobs.c.state == JobState.RUNNING.value)


def _is_open() -> ColumnElement[bool]:
    return or_(training_jobs.c.state == JobState.QUEUED.value, training_jobs.c.state == JobState.RUNNING.value)


def _job(row: RowMapping) -> TrainingJob:
    values = {key: value for key, value in row.items() if key not in ("claimant", "claim_until_s")}
    values |= {"sites": tuple(row["sites"]), "state": JobState(row["state"])}
    if "log" in values:
        values["log"] = tuple((float(at_s), str(text)) for at_s, text in row["log"])
    return TrainingJob(**values)
