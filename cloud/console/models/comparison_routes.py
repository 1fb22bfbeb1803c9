"""Pages of comparisons: the form with all comparisons, and one with its figures."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from cloud.console.audience import Audience, Audiences
from cloud.console.models.comparison_words import comparison_in_full, comparison_on_page
from cloud.console.page import page, part
from cloud.console.rendering import render
from cloud.store import Store
from cloud.store.bundle_queries import ListedBundle, bundle_page
from cloud.store.comparison_samples import compared_samples
from cloud.store.comparisons import MAX_SAMPLES, comparison_page, one_comparison

LISTED, OFFERED = 50, 200


def comparison_router(store: Store, audiences: Audiences) -> APIRouter:
    """Return the pages and their parts."""
    router = APIRouter(include_in_schema=False)
    _add_list(router, store, audiences)
    _add_one(router, store, audiences)
    return router


def _add_list(router: APIRouter, store: Store, audiences: Audiences) -> None:
    async def list_html(audience: Audience) -> str:
        async def read() -> str:
            async with store.reading() as connection:
                found = await comparison_page(connection, size=LISTED)
            return render("models/comparisons.html", comparisons=[comparison_on_page(item) for item in found])

        return await audience.snapshots.shared("comparisons", read)

    @router.get("/models/compare")
    async def comparisons(request: Request, first: str = "", second: str = "") -> HTMLResponse:
        """Answer with the form and the list."""
        audience = audiences.of(request)

        async def read() -> tuple[int, dict[str, Any]]:
            async with store.reading() as connection:
                bundles = await bundle_page(connection, size=OFFERED, newest_first=True)
            names = [bundle.entry.name for bundle in bundles]
            values = {
                "bundles": [bundle for bundle in bundles if names.count(bundle.entry.name) > 1],
                "first": first[:128] or _partner(bundles, second),
                "second": second[:128],
                "most": MAX_SAMPLES,
            }
            return 200, values | {"content": await list_html(audience)}

        return await page(request, audience, "models/comparisons_page.html", read)

    @router.get("/parts/models/compare")
    async def comparisons_part(request: Request) -> HTMLResponse:
        """Answer with the list alone."""
        return part(await list_html(audiences.of(request)))


def _add_one(router: APIRouter, store: Store, audiences: Audiences) -> None:
    async def one_html(audience: Audience, number: str) -> tuple[int, str]:
        known = int(number) if number.isascii() and number.isdecimal() and len(number) < 19 else 0

        async def read() -> tuple[int, str]:
            async with store.reading() as connection:
                found = await one_comparison(connection, known)
                judged = await compared_samples(connection, known) if found is not None else []
            shown = comparison_in_full(found, judged) if found is not None else None
            return 404 if found is None else 200, render("models/comparison.html", comparison=shown)

        return await audience.snapshots.shared(("comparison", known), read)

    @router.get("/models/compare/{number}")
    async def comparison(request: Request, number: str) -> HTMLResponse:
        """Answer with the page; 404 for an unknown comparison."""
        audience = audiences.of(request)

        async def read() -> tuple[int, dict[str, Any]]:
            status, text = await one_html(audience, number)
            return status, {"content": text, "is_known": status == 200}

        return await page(request, audience, "models/comparison_page.html", read, number=number)

    @router.get("/parts/models/compare/{number}")
    async def comparison_part(request: Request, number: str) -> HTMLResponse:
        """Answer with the comparison alone."""
        status, text = await one_html(audiences.of(request), number)
        return part(text, status)


def _partner(bundles: Sequence[ListedBundle], bundle_id: str) -> str:
    """Return the bundle to compare another one with: the current one of its name, else any; empty without one."""
    names = {bundle.entry.bundle_id: bundle.entry.name for bundle in bundles}
    others = [
        bundle
        for bundle in bundles
        if bundle.entry.name == names.get(bundle_id) and bundle.entry.bundle_id != bundle_id
    ]
    others.sort(key=lambda bundle: not bundle.is_current)
    return others[0].entry.bundle_id if others else ""
