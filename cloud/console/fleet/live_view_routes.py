"""Part of a device's page with the newest sample of a source, which operators ask for."""

import asyncio
import math
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse

from cloud.accounts.identity import ANYBODY, signed_in
from cloud.console.fleet.live_view import live_view_html
from cloud.console.page import part
from cloud.console.review.reading import can_decide
from cloud.evidence.bundle_facts import BundleShelf
from cloud.live_views.desk import MAX_SOURCE_CHARACTERS, LiveViewDesk, LiveViewLimitError
from shared.errors import SettingsError


def live_view_router(desk: LiveViewDesk | None, shelf: BundleShelf) -> APIRouter:
    """Return the route; without a desk it answers 503."""
    router = APIRouter(include_in_schema=False)

    @router.post("/parts/device/{device_id}/live-view")
    async def live_view(
        request: Request,
        device_id: str,
        source: Annotated[str, Query(min_length=1, max_length=MAX_SOURCE_CHARACTERS, pattern=r"^[^\x00]+$")],
    ) -> HTMLResponse:
        """Ask the device, and answer with its newest sample, or the reason why there is none."""
        person = signed_in(request.scope) or ANYBODY
        if desk is None:
            raise HTTPException(503, "This process has no live views.")
        if not can_decide(person):
            raise HTTPException(403, "Live views are for signed-in operators and administrators.")
        try:
            view = await desk.view(device_id, source, name=person.name, actor=person.actor)
        except LiveViewLimitError as error:
            headers = {"Retry-After": str(math.ceil(error.retry_s))}
            raise HTTPException(429, f"{error} Try again in {math.ceil(error.retry_s)} s.", headers) from None
        except SettingsError as error:
            raise HTTPException(404, str(error)) from None
        facts = (await shelf.facts(view.sample.screening.bundle_id))[0] if view.sample is not None else None
        return part(await asyncio.to_thread(live_view_html, view, source, facts))

    return router
