"""Faults around a running job: a locked store, files that cannot be read, and a process that ends slowly."""

import asyncio
import contextlib
import dataclasses
import errno
import sqlite3
import subprocess
import threading
from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy import select

from cloud.jobs.child import child_environment, end_child
from cloud.jobs.runner import TrainingRunner
from cloud.jobs.running_job import JobEnd, RunningJob
from cloud.store.schema import training_jobs
from cloud.store.sqlite.store import DATABASE_FILE
from cloud.store.training_jobs import JobState, cancel_job, claim_next
from shared.errors import StorageError
from tests.cloud.jobs.conftest import OWNER, Workshop
from tests.cloud.jobs.test_runner import begun, training_pids


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the store give up a lock after a tenth of a second."""
    monkeypatch.setattr("cloud.store.sqlite.store.BUSY_TIMEOUT_MS", 100)


@contextlib.asynccontextmanager
async def locked(workshop: Workshop) -> AsyncIterator[None]:
    """Hold the write lock of the store from another connection, until at least one call has failed."""
    path = workshop.desk.settings.data_dir / DATABASE_FILE
    with contextlib.closing(sqlite3.connect(path, 30.0, isolation_level=None, check_same_thread=False)) as other:
        await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
        yield
        await until(lambda: bool(workshop.failures))
        other.execute("ROLLBACK")


async def until(is_reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_reached():
            await asyncio.sleep(0.02)


async def claim_end_s(workshop: Workshop) -> float:
    async with workshop.desk.reading.reading() as connection:
        return float((await connection.execute(select(training_jobs.c.claim_until_s))).scalar_one())


async def test_a_locked_store_does_not_end_a_running_job(impatient: None, workshop: Workshop) -> None:
    job = await workshop.start(await workshop.upload())
    async with workshop.run():
        pid = await begun(workshop, job)
        async with locked(workshop):
            before_s = await claim_end_s(workshop)
        async with asyncio.timeout(60):
            while await claim_end_s(workshop) <= before_s:
                await asyncio.sleep(0.05)
        assert training_pids(job) == [pid]
        await cancel_job(workshop.desk.writing, job.job_id, OWNER)
        cancelled = await workshop.until(job.job_id, lambda job: job.state.is_over)
    assert (cancelled.state, cancelled.attempts) == (JobState.CANCELLED, 1)
    assert all(isinstance(error, StorageError) for error in workshop.failures)
    workshop.failures.clear()


async def test_a_locked_store_loses_no_result(impatient: None, workshop: Workshop) -> None:
    await workshop.start(await workshop.upload())
    job = await claim_next(workshop.desk.writing, "here", 2)
    assert job is not None
    running = RunningJob(await workshop.runner._start_of(job))
    async with locked(workshop):
        end = JobEnd(result={"bundle_id": "press-1"})
        finishing = asyncio.create_task(workshop.runner._finish(job, "here", running, end, None))
    await finishing
    done = await workshop.job(job.job_id)
    assert (done.state, done.result) == (JobState.DONE, {"bundle_id": "press-1"})
    workshop.failures.clear()


async def test_files_that_cannot_be_read_end_the_attempt_and_not_the_runner(workshop: Workshop) -> None:
    desk = workshop.desk
    training = desk.settings.training.model_copy(update={"folder": desk.settings.data_dir / ("x" * 300)})
    settings = desk.settings.model_copy(update={"training": training})
    runner = TrainingRunner(desk.writing, desk.registry, settings, workshop.failures.append)
    job = await workshop.start(await workshop.upload())
    async with dataclasses.replace(workshop, runner=runner).run():
        failed = await workshop.until(job.job_id, lambda job: job.state.is_over)
        second = await workshop.start(str(job.data["upload_id"]))
        await workshop.until(second.job_id, lambda job: job.state.is_over)
    assert (failed.state, failed.attempts) == (JobState.FAILED, 2)
    assert failed.reason.endswith("the files of the job cannot be read (File name too long)")
    assert [error.errno for error in workshop.failures if isinstance(error, OSError)] == [errno.ENAMETOOLONG]
    workshop.failures.clear()


class SlowlyEnded(subprocess.Popen[bytes]):
    """A process whose end is seen only after `released`, which the event loop sets."""

    released: threading.Event
    was_released = False

    def wait(self, timeout: float | None = None) -> int:
        self.was_released = self.released.wait(10)
        return super().wait(timeout)


async def test_the_event_loop_goes_on_while_a_process_ends() -> None:
    process = SlowlyEnded(["sleep", "600"], process_group=0)
    process.released = threading.Event()
    asyncio.get_running_loop().call_later(0.01, process.released.set)
    await end_child(process)
    assert process.was_released
    assert process.returncode == -9


def test_a_child_gets_no_setting_of_the_service() -> None:
    given = {
        "PATH": "/bin",
        "VEDETTE_STORE_URL": "postgresql://u:p@h/d",
        "AWS_SECRET_ACCESS_KEY": "s",
        "PGPASSWORD": "p",
    }
    assert child_environment(given, opens_store=False) == {"PATH": "/bin"}
    assert set(child_environment(given, opens_store=True)) == {"PATH", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD"}
