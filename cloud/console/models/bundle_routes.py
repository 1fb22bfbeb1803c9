"""Pages of bundles: all of them by name, and one with its report and its rollout."""

import time
from itertools import groupby
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from cloud.bundle_report.reading import BundleReports
from cloud.console.audience import Audience, Audiences
from cloud.console.models.bundle_words import report_on_page
from cloud.console.models.bundles import NO_JUDGEMENT, ReadRollout, rollout_of
from cloud.console.models.rollout_words import rollout_on_page
from cloud.console.page import page, part
from cloud.console.rendering import render
from cloud.store import Store
from cloud.store.bundle_queries import bundle_page
from cloud.store.group_settings import group_sizes
from cloud.store.rollouts import active_rollouts

BUNDLES_ON_PAGE = 200


def bundle_page_router(
    store: Store, reports: BundleReports, read_rollout: ReadRollout, audiences: Audiences
) -> APIRouter:
    """Return the pages and their parts."""
    router = APIRouter(include_in_schema=False)
    _add_list(router, store, audiences)

    async def html(audience: Audience, bundle_id: str) -> tuple[int, str]:
        async def read() -> tuple[int, str]:
            report = await reports.report(bundle_id, time.time(), audience.sites)
            if report is None:
                return 404, render("models/bundle.html", bundle=None, bundle_id=bundle_id)
            facts = {"name": report.name, "bundle_id": report.bundle_id}
            rollout = await rollout_of(read_rollout, facts, of_all=not audience.sites)
            values = {"bundle": report_on_page(report), "no_judgement": NO_JUDGEMENT, "bundle_id": bundle_id}
            shown = rollout_on_page(rollout) if rollout is not None else None
            return 200, render("models/bundle.html", **values, rollout=shown)

        return await audience.snapshots.shared(("bundle", bundle_id), read)

    @router.get("/bundle/{bundle_id}")
    async def bundle(request: Request, bundle_id: str) -> HTMLResponse:
        """Answer with the page; 404 for an unknown bundle."""
        audience = audiences.of(request)

        async def read() -> tuple[int, dict[str, Any]]:
            status, text = await html(audience, bundle_id)
            async with store.reading() as connection:
                groups = list(await group_sizes(connection, audience.sites))
            return status, {"content": text, "is_known": status == 200, "groups": groups}

        return await page(request, audience, "models/bundle_page.html", read, bundle_id=bundle_id)

    @router.get("/parts/bundle/{bundle_id}")
    async def bundle_part(request: Request, bundle_id: str) -> HTMLResponse:
        """Answer with the bundle alone."""
        status, text = await html(audiences.of(request), bundle_id)
        return part(text, status)

    return router


def _add_list(router: APIRouter, store: Store, audiences: Audiences) -> None:
    async def html(audience: Audience) -> str:
        async def read() -> str:
            async with store.reading() as connection:
                found = await bundle_page(connection, size=BUNDLES_ON_PAGE + 1, newest_first=True)
                rolled_out = {rollout.bundle_id: rollout for rollout in await active_rollouts(connection)}
            names = [
                {"name": name, "groups": bundles[0].groups, "bundles": bundles}
                for name, each in groupby(found[:BUNDLES_ON_PAGE], key=lambda bundle: bundle.entry.name)
                if (bundles := list(each))
            ]
            is_cut = len(found) > BUNDLES_ON_PAGE
            return render("models/bundles.html", names=names, rolled_out=rolled_out, is_cut=is_cut)

        return await audience.snapshots.shared("bundles", read)

    @router.get("/models")
    async def bundles(request: Request) -> HTMLResponse:
        """Answer with the list."""
        audience = audiences.of(request)

        async def read() -> tuple[int, dict[str, Any]]:
            return 200, {"content": await html(audience)}

        return await page(request, audience, "models/bundles_page.html", read)

    @router.get("/parts/models")
    async def bundles_part(request: Request) -> HTMLResponse:
        """Answer with the list alone."""
        return part(await html(audiences.of(request)))
