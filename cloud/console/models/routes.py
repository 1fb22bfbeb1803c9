"""Page of one bundle with its rollout."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from cloud.console.audience import Audiences
from cloud.console.models.bundles import NO_JUDGEMENT, ReadManifest, ReadRollout, bundle_view, rollout_of
from cloud.console.page import page, part
from cloud.console.rendering import render
from shared.errors import BundleError


def bundle_page_router(read_manifest: ReadManifest, read_rollout: ReadRollout, audiences: Audiences) -> APIRouter:
    """Return the page and its part; `read_manifest` raises BundleError for an unknown bundle."""
    router = APIRouter(include_in_schema=False)

    async def html(request: Request, bundle_id: str) -> tuple[int, str]:
        try:
            view = bundle_view(await read_manifest(bundle_id))
        except BundleError as error:
            return 404, render("models/bundle.html", bundle=None, problem=str(error))
        rollout = await rollout_of(read_rollout, view, of_all=not audiences.of(request).sites)
        values = {"bundle": view, "rollout": rollout, "no_judgement": NO_JUDGEMENT}
        return 200, render("models/bundle.html", **values)

    @router.get("/bundle/{bundle_id}")
    async def bundle(request: Request, bundle_id: str) -> HTMLResponse:
        """Answer with the page; 404 for an unknown bundle."""

        async def read() -> tuple[int, dict[str, Any]]:
            status, text = await html(request, bundle_id)
            return status, {"bundle": text}

        return await page(request, audiences.of(request), "models/page.html", read)

    @router.get("/parts/bundle/{bundle_id}")
    async def bundle_part(request: Request, bundle_id: str) -> HTMLResponse:
        """Answer with the bundle alone."""
        status, text = await html(request, bundle_id)
        return part(text, status)

    return router
