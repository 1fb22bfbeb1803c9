"""Routes of training jobs: started, followed, cancelled, removed, and their bundles published to a trial."""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from cloud.jobs.desk import TrainingCounts, TrainingDesk
from cloud.jobs.options import ID_PATTERN, NAME_PATTERN, JobData, JobOptions, JobRequest, StoredSelection
from cloud.jobs.publishing import PublicationRequest, publish
from cloud.jobs.uploads import UploadError
from cloud.moments import rfc3339
from cloud.rest.access import Caller, caller_of, needs
from cloud.rest.pages import CursorText, Name, Size, next_cursor, page, read_cursor
from cloud.rest.problems import WITH_BODY, Problem, not_found
from cloud.rest.routers import api_router
from cloud.rest.training_uploads import NO_TRAINING, FileName
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.training_jobs import JobRefusedError, JobState, TrainingJob, cancel_job, find_job, job_page
from shared.errors import BundleError, CertificateError, DataError, SettingsError

JobId = Annotated[str, Path(pattern=ID_PATTERN)]


class LogLine(BaseModel):
    """One line of a job's log."""

    at: str
    text: str


class JobItem(BaseModel):
    """One job. `share` of the `stage` is done, 0 to 1; `remaining_s` of the stage is null while it is unknown."""

    job_id: str
    created_by: str
    created_at: str
    started_at: str | None
    ended_at: str | None
    data: JobData
    options: JobOptions
    state: JobState
    cancel_requested: bool
    attempts: int
    stage: str
    share: float
    remaining_s: float | None
    reason: str
    result: dict[str, Any] | None
    published: dict[str, Any] | None


class JobDetail(JobItem):
    """One job with its log: the newest lines."""

    log: list[LogLine]


class JobPage(BaseModel):
    """Page of jobs, newest first; `next` is null on the last page."""

    items: list[JobItem]
    next: str | None


class PublicationItem(BaseModel):
    """A published bundle; `is_first`: it is the first of its name, and current at once without a rollout."""

    bundle_id: str
    name: str
    is_first: bool


def training_routes(reading: Store, desk: TrainingDesk | None) -> APIRouter:
    """Return the routes; without `desk` those that need files or a key answer 409."""
    router = api_router("training")
    _add_changes(router, reading, desk)

    @router.get("/training/samples", response_model=TrainingCounts, **needs(Scope.TRAINING_READ, 409))
    async def count_samples(
        request: Request,
        bundle_name: Annotated[str, Query(pattern=NAME_PATTERN)],
        device_id: Name = "",
        group: Name = "",
        days: Annotated[float, Query(gt=0, le=3650, allow_inf_nan=False)] = 30.0,
    ) -> TrainingCounts:
        """Count the stored samples of a device or a group that a training would have."""
        wanted = _selection(device_id=device_id, group=group, bundle_name=bundle_name, days=days)
        return await _here(desk).count_samples(wanted, caller_of(request).sites)

    @router.get("/training/jobs", response_model=JobPage, **needs(Scope.TRAINING_READ))
    async def list_jobs(request: Request, cursor: CursorText = "", size: Size = 50) -> dict[str, Any]:
        """Return one page of jobs, newest first."""
        key = read_cursor(request, cursor, int)
        before, sites = key[0] if key is not None else None, caller_of(request).sites
        async with reading.reading() as connection:
            found = await job_page(connection, before=before, size=size + 1, sites=sites)
        following = next_cursor(request, found[size - 1].number) if len(found) > size else None
        return page([_item(job) for job in found[:size]], following)

    @router.get("/training/jobs/{job_id}", response_model=JobDetail, **needs(Scope.TRAINING_READ, 404))
    async def show_job(request: Request, job_id: JobId) -> dict[str, Any]:
        """Return one job with its log and its result."""
        job = await visible_job(reading, job_id, caller_of(request))
        return _item(job) | {"log": [{"at": rfc3339(at_s), "text": text} for at_s, text in job.log]}

    @router.get(
        "/training/jobs/{job_id}/pictures/{name}",
        response_class=Response,
        **needs(Scope.TRAINING_READ, 404, 409, responses={200: {"content": {"image/png": {}}}}),
    )
    async def show_picture(request: Request, job_id: JobId, name: FileName) -> Response:
        """Return a picture of a job's report."""
        data = await _here(desk).picture(await visible_job(reading, job_id, caller_of(request)), name)
        if data is None:
            raise not_found(f"Picture {name[:80]}")
        return Response(data, media_type="image/png")

    return router


def _add_changes(router: APIRouter, reading: Store, desk: TrainingDesk | None) -> None:
    @router.post(
        "/training/jobs", response_model=JobItem, status_code=201, **needs(Scope.TRAINING_WRITE, 404, 409, *WITH_BODY)
    )
    async def start_job(request: Request, body: JobRequest) -> dict[str, Any]:
        """Queue a training; 409 says why it cannot begin, such as too few samples."""
        caller = caller_of(request)
        with job_problems():
            job = await _here(desk).start(body, caller.actor, caller.sites)
        if job is None:
            raise not_found(f"Upload {body.data.upload_id}")
        return _item(job)

    @router.post(
        "/training/jobs/{job_id}/cancellation",
        response_model=JobItem,
        **needs(Scope.TRAINING_WRITE, 400, 404, 408, 409, 413),
    )
    async def cancel(request: Request, job_id: JobId) -> dict[str, Any]:
        """Cancel a job that waits or runs; a running one ends within seconds."""
        caller = caller_of(request)
        await visible_job(reading, job_id, caller)
        with job_problems():
            job = await cancel_job(_here(desk).writing, job_id, caller.actor)
        if job is None:
            raise not_found(f"Job {job_id}")
        return _item(job)

    @router.delete("/training/jobs/{job_id}", status_code=204, **needs(Scope.TRAINING_WRITE, 404, 409))
    async def remove(request: Request, job_id: JobId) -> None:
        """Remove a job that is over with its files and its upload."""
        caller = caller_of(request)
        await visible_job(reading, job_id, caller)
        with job_problems():
            if not await _here(desk).remove(job_id, caller.actor):
                raise not_found(f"Job {job_id}")

    @router.post(
        "/training/jobs/{job_id}/publication",
        response_model=PublicationItem,
        status_code=201,
        **needs(Scope.ROLLOUTS_WRITE, 404, 409, *WITH_BODY),
    )
    async def publish_bundle(request: Request, job_id: JobId, body: PublicationRequest) -> dict[str, Any]:
        """Add the bundle of a job to the registry and begin its rollout to a trial."""
        caller = caller_of(request)
        job = await visible_job(reading, job_id, caller)
        with job_problems():
            return asdict(await publish(_here(desk), job, body, caller.actor))


async def visible_job(reading: Store, job_id: str, caller: Caller) -> TrainingJob:
    """Return a job that the caller may see; raises Problem (404)."""
    async with reading.reading() as connection:
        job = await find_job(connection, job_id)
    if job is None or not job.is_visible_to(caller.sites):
        raise not_found(f"Job {job_id}")
    return job


@contextlib.contextmanager
def job_problems() -> Iterator[None]:
    """Answer refusals of the block with problem details."""
    try:
        yield
    except SettingsError as error:
        raise DataError(str(error)) from None
    except (JobRefusedError, UploadError) as error:
        raise Problem(409, "job-refused", str(error)) from None
    except (BundleError, CertificateError) as error:
        raise Problem(409, "bundle-refused", str(error)) from None


def _selection(**values: Any) -> StoredSelection:
    """Return a selection; raises DataError unless it names a device or a group."""
    try:
        return StoredSelection(**values)
    except ValueError:
        raise DataError("Give device_id or group, and not both.") from None


def _here(desk: TrainingDesk | None) -> TrainingDesk:
    if desk is None:
        raise NO_TRAINING
    return desk


def _item(job: TrainingJob) -> dict[str, Any]:
    names = ("job_id", "created_by", "data", "options", "state", "cancel_requested", "attempts", "stage", "share")
    facts = {name: getattr(job, name) for name in (*names, "remaining_s", "reason", "result", "published")}
    moments = {name: getattr(job, f"{name}_s") for name in ("created_at", "started_at", "ended_at")}
    return facts | {name: rfc3339(at_s) if at_s is not None else None for name, at_s in moments.items()}
