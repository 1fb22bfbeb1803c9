"""Page of one verdict, and the same as a part beside the list."""

import asyncio
import uuid
from collections.abc import Collection
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, Response

from cloud.accounts.identity import signed_in
from cloud.console.audience import Audiences
from cloud.console.page import NO_STORE, page, part
from cloud.console.rendering import render
from cloud.console.why.reading import WAITING, VerdictReader
from cloud.evidence.exports import MEDIA_TYPES, Exporter, ExportForm, ExportsBusyError
from cloud.evidence.pictures import picture_png
from cloud.user_roles import UserRole
from shared.images import decode_image

EXPORT_RETRY_S = 5
_PICTURE_HEADERS = {"Cache-Control": "private, max-age=300", "X-Content-Type-Options": "nosniff"}
NO_ID = "This is not a sample id: follow a link in the list."


def verdict_router(verdicts: VerdictReader, audiences: Audiences, *, share_days: float = 0.0) -> APIRouter:
    """Return the page, its part and its exports; page and part wait for a verdict that does not exist yet.

    Operators may make links that are valid for at most `share_days`; 0: nobody may.
    """
    router = APIRouter(include_in_schema=False)

    @router.get("/verdict/{sample_id}")
    async def verdict(request: Request, sample_id: str) -> HTMLResponse:
        """Answer with the page; 404 for an unknown sample."""

        async def read() -> tuple[int, dict[str, Any]]:
            days = share_days if may_share(request) else 0.0
            status, html = await verdict_html(verdicts, _uuid(sample_id), whole_page=True, share_days=days)
            return status, {"verdict": html, "can_report": status == 200 and may_share(request)}

        return await page(request, audiences.of(request), "why/page.html", read, sample_id=sample_id)

    @router.get("/parts/verdict/{sample_id}")
    async def verdict_part(sample_id: str, whole_page: bool = False) -> HTMLResponse:
        """Answer with one verdict, or why there is none."""
        status, html = await verdict_html(verdicts, _uuid(sample_id), whole_page=whole_page)
        return part(html, status)

    _add_parts(router, verdicts)
    _add_files(router, verdicts)
    return router


def _add_parts(router: APIRouter, verdicts: VerdictReader) -> None:
    @router.get("/parts/verdict/{sample_id}/compare")
    async def compare_part(sample_id: uuid.UUID) -> HTMLResponse:
        """Answer with the normal pictures to compare a sample with."""
        verdict, notice = await verdicts.detail(sample_id)
        if verdict is None:
            raise HTTPException(404, notice)
        return part(render("why/compare_part.html", verdict=verdict))

    @router.get("/parts/verdict/{sample_id}/text")
    async def text_part(sample_id: uuid.UUID) -> HTMLResponse:
        """Answer with the paragraph of one verdict, written by the text model where it may and does."""
        text = await verdicts.text(sample_id)
        if text is None:
            raise HTTPException(404, f"There is no verdict on {sample_id}.")
        return part(render("why/text.html", **text))


def _add_files(router: APIRouter, verdicts: VerdictReader) -> None:
    exporter = Exporter()

    @router.get("/media/{sample_id}/expected.png")
    async def expected(sample_id: uuid.UUID) -> Response:
        """Answer with the expected look of a picture; 404 where normal pictures or a marked region are missing."""
        picture = await verdicts.expected_png(sample_id)
        if picture is None:
            raise HTTPException(404, "There are no normal pictures to make the expected look of this sample from.")
        return Response(picture, media_type="image/png", headers=_PICTURE_HEADERS)

    @router.get("/media/{sample_id}/normal/{number}.png")
    async def normal(sample_id: uuid.UUID, number: int) -> Response:
        """Answer with a normal picture of the bundle that judged a sample; the golden one is 0."""
        picture = await verdicts.bundle_picture(sample_id, number)
        if picture is None:
            raise HTTPException(404, "The bundle has no such normal picture.")
        pixels = await asyncio.to_thread(decode_image, picture)  # encoded again: no file goes to a browser as it is
        return Response(await asyncio.to_thread(picture_png, pixels), media_type="image/png", headers=_PICTURE_HEADERS)

    @router.get("/verdict/{sample_id}/export.{form}")
    async def export(sample_id: uuid.UUID, form: ExportForm) -> Response:
        """Answer with the verdict as a PDF report or a ZIP archive."""
        evidence = await verdicts.evidence(sample_id)
        if isinstance(evidence, str):
            raise HTTPException(404, evidence)
        try:
            data = await exporter.export(evidence, form)
        except ExportsBusyError:
            raise HTTPException(503, "Too many exports wait.", headers={"Retry-After": str(EXPORT_RETRY_S)}) from None
        headers = {**NO_STORE, "Content-Disposition": f'attachment; filename="verdict-{sample_id}.{form}"'}
        return Response(data, media_type=MEDIA_TYPES[form], headers=headers)


def may_share(request: Request) -> bool:
    """Return whether the person behind a request may make links without sign-in."""
    person = signed_in(request.scope)
    return person is not None and bool(person.name) and person.role.covers(UserRole.OPERATOR)


async def verdict_html(
    verdicts: VerdictReader,
    sample_id: uuid.UUID | None,
    *,
    whole_page: bool = False,
    sites: Collection[str] = (),
    share_days: float = 0.0,
) -> tuple[int, str]:
    """Return status and HTML of one verdict, or of the reason why there is none; raises StorageError.

    With `sites` a sample of another site is unknown. With `share_days` the page offers links of at most that time.
    """
    if sample_id is None:
        verdict, notice = None, NO_ID
    else:
        verdict, notice = await verdicts.detail(sample_id, sites, compares=whole_page)
    waits = notice == WAITING
    html = render(
        "why/verdict.html",
        verdict=verdict,
        notice=notice,
        sample_id=str(sample_id or ""),
        waits=waits,
        whole_page=whole_page,
        share_days=share_days,
        writes_texts=verdicts.writes_texts,
    )
    return 200 if verdict is not None or waits else 404, html


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None
