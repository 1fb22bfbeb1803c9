"""Everything that people and programs do with training jobs; console and HTTP API call the same functions."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from cloud.jobs.folders import JobFolders
from cloud.jobs.inspecting import Inspector
from cloud.jobs.minimum import stored_shortage
from cloud.jobs.options import JobRequest, StoredSelection
from cloud.jobs.signing import usable_key
from cloud.jobs.uploads import PREVIEWS, UploadFacts, Uploads
from cloud.settings import CloudSettings
from cloud.store import Store
from cloud.store.registry import Registry
from cloud.store.training_jobs import (
    JobRefusedError,
    NewJob,
    TrainingJob,
    add_job,
    known_jobs,
    note_upload,
    remove_job,
)
from cloud.store.training_samples import SampleSource, choose_samples, devices_of
from shared.errors import CertificateError

MAX_PICTURE_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class TrainingCounts:
    """Numbers of stored samples for a training; `problem` says why it cannot begin, and how many are missing."""

    devices: int
    modality: str
    judged_normal: int
    audits: int
    false_alarms: int
    normals: int
    real: int
    missed: int
    other_format: int
    without_payload: int
    problem: str


class TrainingDesk:
    """Uploads, jobs and their results; `reading` is bounded for clients, `writing` is the service's."""

    def __init__(self, reading: Store, writing: Store, registry: Registry, settings: CloudSettings) -> None:
        self.reading, self.writing, self.registry, self.settings = reading, writing, registry, settings
        self.folders = JobFolders(settings.training_folder)
        self.uploads = Uploads(self.folders.uploads, settings.training)
        self._inspector = Inspector(self.uploads)

    async def problem(self) -> str:
        """Return why no job can be started here; empty if one can."""
        if not self.settings.training.concurrent_jobs:
            return "Training is off on this service: training.concurrent_jobs is 0 in cloud.toml."
        try:
            await usable_key(self.registry, self.settings.training.signing_key)
        except CertificateError as error:
            return str(error)
        return ""

    async def new_upload(self, actor: str) -> UploadFacts:
        """Make an empty upload. Raises UploadError, StorageError."""
        facts = await self.uploads.create(actor)
        await note_upload(self.writing, facts.upload_id, actor)
        return facts

    async def remove_upload(self, upload_id: str, actor: str) -> bool:
        """Delete an upload of this owner with its files; False for an unknown one.

        Raises JobRefusedError while a job that is not over uses it, StorageError.
        """
        if await self.uploads.find(upload_id, actor) is None:
            return False
        if any(not job.state.is_over for job in await self._jobs_of(upload_id)):
            raise JobRefusedError("A job uses this upload: cancel it first.")
        await note_upload(self.writing, upload_id, actor, removed=True)
        await self.uploads.remove(upload_id)
        return True

    async def inspect(self, facts: UploadFacts) -> UploadFacts:
        """Inspect an upload, and return it with the result. Raises UploadError if it is not ready."""
        return await self._inspector.inspect(facts)

    async def count_samples(self, wanted: StoredSelection, sites: tuple[str, ...]) -> TrainingCounts:
        """Return how many samples of the store a training would have, and whether they are enough."""
        async with self.reading.reading() as connection:
            devices = await devices_of(connection, device_id=wanted.device_id, group=wanted.group, sites=sites)
            since_s = time.time() - wanted.days * 86_400
            chosen = await choose_samples(connection, SampleSource(devices, wanted.bundle_name, since_s))
        if chosen is None:
            text = f"There is no bundle named {wanted.bundle_name!r}: choose the name that the devices run."
            return TrainingCounts(len(devices), "", *(0,) * 8, text)
        problem = (
            "No device of this name is here." if not devices else stored_shortage(chosen.modality, len(chosen.normals))
        )
        return TrainingCounts(
            len(devices),
            chosen.modality.value,
            len(chosen.judged_normal),
            len(chosen.audits),
            len(chosen.false_alarms),
            len(chosen.normals),
            len(chosen.real),
            len(chosen.missed),
            chosen.other_format,
            chosen.without_payload,
            problem,
        )

    async def start(self, request: JobRequest, actor: str, sites: tuple[str, ...]) -> TrainingJob | None:
        """Queue a job; None for an unknown upload. Raises JobRefusedError with the reason, StorageError."""
        if problem := await self.problem():
            raise JobRefusedError(problem)
        data = request.data
        if data.upload_id is not None:
            facts = await self.uploads.find(data.upload_id, actor)
            if facts is None:
                return None
            if facts.inspection is None:
                raise JobRefusedError("Nobody has looked at the upload yet: ask for its inspection first.")
            if facts.inspection.problem:
                raise JobRefusedError(facts.inspection.problem)
            await self.uploads.seal(facts)
        elif data.stored is not None:
            counts = await self.count_samples(data.stored, sites)
            if counts.problem:
                raise JobRefusedError(counts.problem)
        values = data.model_dump(mode="json", exclude_none=True)
        return await add_job(self.writing, NewJob(values, request.options.model_dump(mode="json"), sites), actor)

    async def remove(self, job_id: str, actor: str) -> bool:
        """Remove a job that is over with all its files; False for an unknown one.

        Its upload goes too, unless another job has it. Raises JobRefusedError, StorageError.
        """
        job = await remove_job(self.writing, job_id, actor)
        if job is None:
            return False
        await asyncio.to_thread(self.folders.remove, job_id)
        upload_id = job.data.get("upload_id")
        if upload_id and not await self._jobs_of(upload_id):
            await self.uploads.remove(upload_id)
        return True

    def bundle_path(self, job: TrainingJob) -> Path:
        """Return the file of the bundle of a job that is done. Raises JobRefusedError for another."""
        if job.result is None:
            raise JobRefusedError(f"The job has no bundle: it is {job.state}.")
        return self.folders.job(job.job_id) / str(job.result["folder"]) / "bundle.vedette"

    async def picture(self, job: TrainingJob, name: str) -> bytes | None:
        """Return a picture of the report of a job, None for an unknown one."""
        if job.result is None or name not in job.result["pictures"]:
            return None
        return await _small_file(self.folders.job(job.job_id) / job.result["folder"] / "report" / name)

    async def preview(self, facts: UploadFacts, name: str) -> bytes | None:
        """Return a small picture of an upload, None for an unknown one."""
        if facts.inspection is None or name not in facts.inspection.previews:
            return None
        return await _small_file(self.uploads.path(facts.upload_id) / PREVIEWS / name)

    async def _jobs_of(self, upload_id: str) -> list[TrainingJob]:
        async with self.reading.reading() as connection:
            jobs = await known_jobs(connection)
        return [job for job in jobs if job.data.get("upload_id") == upload_id]


async def _small_file(path: Path) -> bytes | None:
    def read() -> bytes | None:
        try:
            return path.read_bytes() if path.stat().st_size <= MAX_PICTURE_BYTES else None
        except OSError:
            return None

    return await asyncio.to_thread(read)
