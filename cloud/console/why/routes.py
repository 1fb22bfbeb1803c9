"""Page of one verdict, and the same as a part beside the list."""

import uuid
from collections.abc import Collection
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from cloud.console.audience import Audiences
from cloud.console.page import page, part
from cloud.console.rendering import render
from cloud.console.why.reading import WAITING, VerdictReader

NO_ID = "This is not a sample id: follow a link in the list."


def verdict_router(verdicts: VerdictReader, audiences: Audiences) -> APIRouter:
    """Return the page and its part; both wait for a verdict that does not exist yet."""
    router = APIRouter(include_in_schema=False)

    @router.get("/verdict/{sample_id}")
    async def verdict(request: Request, sample_id: str) -> HTMLResponse:
        """Answer with the page; 404 for an unknown sample."""

        async def read() -> tuple[int, dict[str, Any]]:
            status, html = await verdict_html(verdicts, _uuid(sample_id), whole_page=True)
            return status, {"verdict": html}

        return await page(request, audiences.of(request), "why/page.html", read)

    @router.get("/parts/verdict/{sample_id}")
    async def verdict_part(sample_id: str, whole_page: bool = False) -> HTMLResponse:
        """Answer with one verdict, or why there is none."""
        status, html = await verdict_html(verdicts, _uuid(sample_id), whole_page=whole_page)
        return part(html, status)

    return router


async def verdict_html(
    verdicts: VerdictReader, sample_id: uuid.UUID | None, *, whole_page: bool = False, sites: Collection[str] = ()
) -> tuple[int, str]:
    """Return status and HTML of one verdict, or of the reason why there is none; raises StorageError.

    With `sites` a sample of another site is unknown.
    """
    if sample_id is None:
        verdict, notice = None, NO_ID
    else:
        verdict, notice = await verdicts.detail(sample_id, sites)
    waits = notice == WAITING
    html = render(
        "why/verdict.html",
        verdict=verdict,
        notice=notice,
        sample_id=str(sample_id or ""),
        waits=waits,
        whole_page=whole_page,
    )
    return 200 if verdict is not None or waits else 404, html


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None
