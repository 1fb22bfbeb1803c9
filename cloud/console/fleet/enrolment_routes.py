"""Page of enrolment: a form that makes a token, and the tokens that can still be spent."""

import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from cloud.console.audience import Audiences
from cloud.console.page import page
from cloud.store import Store
from cloud.store.fleet import open_tokens
from cloud.store.group_settings import group_sizes
from cloud.store.system_queries import known_sites


def enrolment_router(store: Store, audiences: Audiences) -> APIRouter:
    """Return the page; tokens are made and deleted through the HTTP API."""
    router = APIRouter(include_in_schema=False)

    @router.get("/enrolment")
    async def enrolment(request: Request) -> HTMLResponse:
        """Answer with the page."""
        audience = audiences.of(request)

        async def read() -> tuple[int, dict[str, Any]]:
            tokens = await open_tokens(store, time.time(), audience.sites)
            async with store.reading() as connection:
                groups = list(await group_sizes(connection, audience.sites))
                sites = list(audience.sites) or await known_sites(connection)
            return 200, {"tokens": tokens, "groups": groups, "sites": sites}

        return await page(request, audience, "fleet/enrolment.html", read)

    return router
