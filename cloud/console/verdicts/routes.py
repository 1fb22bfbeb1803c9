"""Page "Verdicts": all verdicts, the newest first, filtered, and one of them beside the list."""

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from cloud.console.audience import Audiences
from cloud.console.guidance import BundleProblems
from cloud.console.page import page, part
from cloud.console.rendering import render
from cloud.console.verdicts.listing import ListReader
from cloud.console.verdicts.query import ListQuery, key_in
from cloud.console.why.reading import VerdictReader
from cloud.console.why.routes import verdict_html
from cloud.store import Store


def verdict_list_router(
    store: Store, verdicts: VerdictReader, audiences: Audiences, bundle_problems: BundleProblems
) -> APIRouter:
    """Return the page and its parts."""
    router = APIRouter(include_in_schema=False)
    listing = ListReader(store, bundle_problems)

    @router.get("/verdicts")
    async def verdict_list(request: Request) -> HTMLResponse:
        """Answer with the page as its address says."""
        query, audience = ListQuery.parse(request.query_params), audiences.of(request)

        async def read() -> tuple[int, dict[str, Any]]:
            listed = await listing.page(audience, query)
            values = {"list": listed.html, "choices": await listing.choices(audience, query), "verdict": ""}
            if (opened := _sample_id(request.query_params.get("open", ""))) is not None:
                values["verdict"] = (await verdict_html(verdicts, opened, sites=audience.sites))[1]
            return 200, values

        return await page(request, audience, "verdicts/page.html", read, query=query)

    @router.get("/parts/list")
    async def list_part(request: Request) -> HTMLResponse:
        """Answer with one page of the list."""
        return part((await listing.page(audiences.of(request), ListQuery.parse(request.query_params))).html)

    @router.get("/parts/filters")
    async def filters_part(request: Request) -> HTMLResponse:
        """Answer with the filters and their choices."""
        query = ListQuery.parse(request.query_params)
        choices = await listing.choices(audiences.of(request), query)
        return part(render("verdicts/filters.html", query=query, choices=choices))

    @router.get("/parts/new")
    async def new(request: Request, since: Annotated[str, Query(max_length=64)] = "") -> dict[str, int]:
        """Answer with the number of verdicts that are newer than `since`."""
        query = ListQuery.parse(request.query_params)
        return {"new": await listing.new(audiences.of(request), query, key_in(since))}

    return router


def _sample_id(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text) if text else None
    except ValueError:
        return None
