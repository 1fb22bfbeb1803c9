"""Runner of training jobs: claims them in the store and runs each in a child process, within its limits."""

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from cloud.jobs.folders import JobFolders, newest_change_s
from cloud.jobs.messages import TrainingStart
from cloud.jobs.options import JobData, JobOptions
from cloud.jobs.running_job import JobEnd, RunningJob
from cloud.jobs.signing import usable_key
from cloud.jobs.uploads import UploadFacts, Uploads
from cloud.settings import CloudSettings
from cloud.store import Store
from cloud.store.audit import SERVICE_ACTOR
from cloud.store.registry import Registry
from cloud.store.training_jobs import (
    CLAIM_S,
    JobRefusedError,
    JobState,
    Order,
    TrainingJob,
    claim_next,
    end_job,
    give_back,
    is_cancelled,
    jobs_ended_before,
    known_jobs,
    remove_job,
    renew,
)
from shared.backoff import Backoff
from shared.errors import RefusedRowError, StorageError, VedetteError
from shared.logs import EventLog

POLL_S = 1.0  # between two looks for a job, at a cancellation, and at the memory of a job
RENEW_S = 3.0  # between two renewals of a claim without news; with news each POLL_S
CLEAN_EVERY_S = 3600.0
FIRST_PAUSE_S, LAST_PAUSE_S = 0.25, 2.0  # back-off of calls that the store fails
STRAY_S = 3600.0  # without a change, until files of no known job are deleted
END_PATIENCE_S = 3600.0  # of the end of a job, which may hold the result of hours
_LOG = EventLog("training")
T = TypeVar("T")


class TrainingRunner:
    """Part of the service that runs training jobs until cancelled; each end is stored, or the job is given back."""

    def __init__(
        self, store: Store, registry: Registry, settings: CloudSettings, on_failure: Callable[[Exception], None]
    ) -> None:
        self._store, self._registry, self._settings = store, registry, settings
        self._on_failure = on_failure
        self._folders = JobFolders(settings.training_folder)
        self._uploads = Uploads(self._folders.uploads, settings.training)

    def tasks(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Return the work to run until cancelled, by name."""
        workers = range(self._settings.training.concurrent_jobs)
        return {f"training_{number}": self._work() for number in workers} | {"training_files": self._clean()}

    async def _work(self) -> None:
        claimant = uuid.uuid4().hex
        while True:
            job, claimed_s = None, time.monotonic()
            try:
                job = await claim_next(self._store, claimant, self._settings.training.attempts)
            except StorageError as error:
                self._on_failure(error)
            if job is None:
                await asyncio.sleep(POLL_S)
                continue
            _LOG.info("training_begins", job=job.job_id, attempt=job.attempts)
            try:
                await self._run(job, claimant, claimed_s)
            except StorageError as error:  # the claim runs out, and the job is taken up again
                self._on_failure(error)
                await asyncio.sleep(POLL_S)

    async def _run(self, job: TrainingJob, claimant: str, claimed_s: float) -> None:
        """Run one attempt of a job. Raises StorageError if the store fails for too long."""
        try:
            start = await self._patiently(lambda: self._start_of(job), CLAIM_S / 2)
        except StorageError:
            raise
        except OSError as error:
            reason = f"the files of the job cannot be read ({error.strerror or error})"
            await self._patiently(
                lambda: give_back(self._store, job.job_id, claimant, reason, counts=True), END_PATIENCE_S
            )
            return
        except (VedetteError, ValueError) as error:
            await self._end(job, claimant, JobState.FAILED, reason=str(error), log=job.log)
            return
        running = RunningJob(start, job.log)
        running.say(f"attempt {job.attempts} of {self._settings.training.attempts} begins")
        work = asyncio.create_task(running.run())
        try:
            stop = await self._watch(job, claimant, claimed_s, running, work)
            end = await work if stop is None else None
        except asyncio.CancelledError:  # the service ends
            await running.kill()
            with contextlib.suppress(StorageError):  # the claim runs out instead
                await give_back(self._store, job.job_id, claimant, "the service was stopped", counts=False)
            raise
        except OSError as error:
            end, stop = JobEnd(crash=f"cannot be started ({error.strerror or error})"), None
        finally:
            await running.kill()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        await self._finish(job, claimant, running, end, stop)

    async def _watch(
        self, job: TrainingJob, claimant: str, claimed_s: float, running: RunningJob, work: "asyncio.Task[JobEnd]"
    ) -> tuple[JobState, str] | None:
        """Renew the claim until the process ends; return the state and reason where it must be ended.

        Raises StorageError if the store fails until the claim has run out: another process may have the job by then.
        """
        settings = self._settings.training
        began_s, renewed_s = time.monotonic(), claimed_s
        sent = None
        while not work.done():
            progress, now_s = running.progress, time.monotonic()
            try:
                if progress != sent or now_s - renewed_s >= RENEW_S:
                    order = await renew(self._store, job.job_id, claimant, progress)
                    sent, renewed_s = progress, now_s
                    if order is Order.LOST:
                        return JobState.RUNNING, "another process runs it"
                    if order is Order.CANCEL:
                        return JobState.CANCELLED, "cancelled"
                else:
                    async with self._store.reading() as connection:
                        if await is_cancelled(connection, job.job_id):
                            return JobState.CANCELLED, "cancelled"
            except StorageError as error:
                if time.monotonic() - renewed_s >= CLAIM_S and not work.done():
                    raise
                self._on_failure(error)
            if running.memory_bytes > settings.memory_bytes:
                limit = f"{settings.memory_bytes / 2**30:.1f} GiB"
                return JobState.FAILED, f"it needed more memory than {limit} (training.memory_bytes): train on less."
            if time.monotonic() - began_s > settings.max_hours * 3600:
                return JobState.FAILED, f"it took longer than {settings.max_hours:g} hours (training.max_hours)."
            await asyncio.wait({work}, timeout=POLL_S)
        return None

    async def _finish(
        self,
        job: TrainingJob,
        claimant: str,
        running: RunningJob,
        end: JobEnd | None,
        stop: tuple[JobState, str] | None,
    ) -> None:
        """Store how an attempt ended; while the store fails, with pauses until END_PATIENCE_S. Raises StorageError."""
        if stop is not None:
            state, reason = stop
            if state.is_over:
                running.say(reason)
                await self._end(job, claimant, state, reason=reason, log=running.progress.log)
        elif end is not None and end.result is not None:
            await self._end(job, claimant, JobState.DONE, result=end.result, log=running.progress.log)
        elif end is not None and end.refusal:
            await self._end(job, claimant, JobState.FAILED, reason=end.refusal, log=running.progress.log)
        elif end is not None:
            reason = f"the training process {end.crash}"
            running.say(reason)

            async def queue_again() -> None:
                await renew(self._store, job.job_id, claimant, running.progress)
                await give_back(self._store, job.job_id, claimant, reason, counts=True)

            await self._patiently(queue_again, END_PATIENCE_S)
        _LOG.info("training_ends", job=job.job_id, stopped=stop[1] if stop else "", crash=end.crash if end else "")

    async def _end(self, job: TrainingJob, claimant: str, state: JobState, **values: Any) -> None:
        await self._patiently(lambda: end_job(self._store, job.job_id, claimant, state, **values), END_PATIENCE_S)

    async def _patiently(self, call: Callable[[], Awaitable[T]], patience_s: float) -> T:
        """Repeat a call with growing pauses while the store fails. Raises StorageError after `patience_s`."""
        until_s, backoff = time.monotonic() + patience_s, Backoff(FIRST_PAUSE_S, LAST_PAUSE_S)
        while True:
            try:
                return await call()
            except RefusedRowError:  # no repetition helps
                raise
            except StorageError as error:
                pause_s = backoff.next_s()
                if time.monotonic() + pause_s > until_s:
                    raise
                self._on_failure(error)
            await asyncio.sleep(pause_s)

    async def _start_of(self, job: TrainingJob) -> TrainingStart:
        """Return what the process needs. Raises SettingsError, CertificateError, StorageError or OSError."""
        data, options = JobData.model_validate(job.data), JobOptions.model_validate(job.options)
        upload: Path | None = None
        if data.upload_id is not None:
            facts = await self._upload(data.upload_id)
            if facts is None or facts.inspection is None:
                raise VedetteError("The uploaded files are gone: upload them again, and start a new job.")
            upload = self._uploads.path(data.upload_id) / facts.inspection.data
            if options.modality is None:
                options = JobOptions.model_validate(job.options | {"modality": facts.inspection.modality or None})
        key, _ = await usable_key(self._registry, self._settings.training.signing_key)
        versions = await self._registry.versions(options.name)
        settings = self._settings.training
        return TrainingStart(
            job_id=job.job_id,
            data=data,
            options=options,
            sites=job.sites,
            version=max((entry.version for entry in versions), default=0) + 1,
            folder=self._folders.attempt(job.job_id, job.attempts).absolute(),
            upload=upload.absolute() if upload is not None else None,
            location=self._settings.store if data.stored is not None else None,
            signing_key=key.absolute(),
            cores=settings.cores or max(1, (os.cpu_count() or 1) // 2),
            parent_pid=os.getpid(),
        )

    async def _upload(self, upload_id: str) -> UploadFacts | None:
        return next((facts for facts in await self._uploads.known() if facts.upload_id == upload_id), None)

    async def _clean(self) -> None:
        """Delete old jobs, files without a job, and unused uploads, at the start and once an hour."""
        while True:
            try:
                await self.clean()
            except (StorageError, OSError) as error:
                self._on_failure(error)
            await asyncio.sleep(CLEAN_EVERY_S)

    async def clean(self) -> None:
        """Do that once. Raises StorageError, OSError."""
        before_s = time.time() - self._settings.training.kept_days * 86_400
        async with self._store.reading() as connection:
            old = await jobs_ended_before(connection, before_s)
        for job_id in old:
            with contextlib.suppress(JobRefusedError):
                await remove_job(self._store, job_id, SERVICE_ACTOR)
                await asyncio.to_thread(self._folders.remove, job_id)
        on_disk = await asyncio.to_thread(self._folders.known_jobs)  # before the store: a new job has a row first
        async with self._store.reading() as connection:
            jobs = await known_jobs(connection)
        kept = {job.job_id for job in jobs}
        for job_id in on_disk:
            if job_id not in kept and await asyncio.to_thread(self._is_stray, job_id):
                await asyncio.to_thread(self._folders.remove, job_id)
        used = {str(job.data.get("upload_id")) for job in jobs}
        removed = await self._uploads.remove_old(used)
        if old or removed:
            _LOG.info("training_removed", jobs=len(old), uploads=len(removed))

    def _is_stray(self, job_id: str) -> bool:
        return newest_change_s(self._folders.job(job_id)) < time.time() - STRAY_S
