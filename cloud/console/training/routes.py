"""Pages of training: the list with the form that starts a job, and one job with its progress and result."""

import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.accounts.identity import signed_in
from cloud.console.audience import Audiences
from cloud.console.page import page, part
from cloud.console.rendering import render
from cloud.console.training.words import job_view
from cloud.jobs.desk import TrainingDesk
from cloud.store import Store
from cloud.store.group_settings import group_sizes
from cloud.store.schema import bundles, devices
from cloud.store.sites import of_sites
from cloud.store.training_jobs import find_job, job_page
from cloud.user_roles import UserRole

PAGE_SIZE, MAX_NAMES = 30, 500
NOT_HERE = "This process runs no training: open the console of one with the role all or console."


def training_router(store: Store, audiences: Audiences, desk: TrainingDesk | None) -> APIRouter:
    """Return the pages and their parts; changes go through the HTTP API."""
    router = APIRouter(include_in_schema=False)
    _add_job(router, store, audiences)

    async def jobs(request: Request) -> str:
        async with store.reading() as connection:
            found = await job_page(connection, size=PAGE_SIZE, sites=audiences.of(request).sites)
        return render("training/jobs.html", jobs=[job_view(job, time.time()) for job in found])

    @router.get("/models/training")
    async def training(request: Request) -> HTMLResponse:
        """Answer with the page."""

        async def read() -> tuple[int, dict[str, Any]]:
            async with store.reading() as connection:
                choices = await _choices(connection, audiences.of(request).sites)
            problem = await desk.problem() if desk is not None else NOT_HERE
            return 200, {"jobs": await jobs(request), "cannot": problem, **choices}

        return await page(request, audiences.of(request), "training/page.html", read, may_start=_is_admin(request))

    @router.get("/parts/models/training")
    async def jobs_part(request: Request) -> HTMLResponse:
        """Answer with the list alone."""
        return part(await jobs(request))

    return router


def _add_job(router: APIRouter, store: Store, audiences: Audiences) -> None:
    async def html(request: Request, job_id: str) -> tuple[int, str]:
        async with store.reading() as connection:
            job = await find_job(connection, job_id)
        if job is None or not job.is_visible_to(audiences.of(request).sites):
            return 404, render("training/job.html", view=None, may_change=False, may_publish=False)
        may = _is_admin(request)
        may_publish = may and not audiences.of(request).sites
        view = job_view(job, time.time())
        return 200, render("training/job.html", view=view, may_change=may, may_publish=may_publish)

    @router.get("/models/training/{job_id}")
    async def training_job(request: Request, job_id: str) -> HTMLResponse:
        """Answer with the page; 404 for an unknown job."""

        async def read() -> tuple[int, dict[str, Any]]:
            status, text = await html(request, job_id)
            return status, {"job": text, "job_id": job_id}

        return await page(request, audiences.of(request), "training/job_page.html", read)

    @router.get("/parts/models/training/{job_id}")
    async def job_part(request: Request, job_id: str) -> HTMLResponse:
        """Answer with the job alone."""
        status, text = await html(request, job_id)
        return part(text, status)


async def _choices(connection: AsyncConnection, sites: tuple[str, ...]) -> dict[str, Any]:
    """Return names of devices, groups and bundles to choose from."""
    query = select(devices.c.device_id).where(devices.c.removed_at_s.is_(None), *of_sites(sites))
    ids = (await connection.execute(query.order_by(devices.c.device_id).limit(MAX_NAMES))).scalars().all()
    names = select(bundles.c.name).distinct().order_by(bundles.c.name).limit(MAX_NAMES)
    return {
        "devices": list(ids),
        "groups": list(await group_sizes(connection, sites)),
        "names": list((await connection.execute(names)).scalars()),
    }


def _is_admin(request: Request) -> bool:
    person = signed_in(request.scope)
    return person is not None and person.role.covers(UserRole.ADMIN)
