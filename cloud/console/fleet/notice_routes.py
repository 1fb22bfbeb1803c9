"""Inbox of notices: open ones, then closed ones."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from cloud.console.audience import Audience, Audiences
from cloud.console.page import page, part
from cloud.console.rendering import render
from cloud.notice_kinds import DEVICE_KINDS, NoticeKind
from cloud.store import Store
from cloud.store.notices import NoticeFilter, notice_page

NOTICES_ON_PAGE = 50
KIND_WORDS = {
    NoticeKind.DEVICE_SILENT: "Device silent",
    NoticeKind.CERTIFICATE_EXPIRING: "Certificate ends",
    NoticeKind.DEVICE_DISK_FULL: "Disk of a device",
    NoticeKind.SERVICE_DISK_FULL: "Disk of the service",
    NoticeKind.PAYLOADS_UNREADABLE: "Payloads not readable",
    NoticeKind.ROLLOUT_HALTED: "Rollout halted",
}


def notice_router(store: Store, audiences: Audiences) -> APIRouter:
    """Return the page and its part."""
    router = APIRouter(include_in_schema=False)

    async def html(request: Request) -> str:
        audience = audiences.of(request)
        kind, before = request.query_params.get("kind", ""), request.query_params.get("before", "")
        known = kind if kind in list(NoticeKind) else ""
        place = int(before) if before.isdecimal() and before.isascii() and len(before) < 18 else None
        key = ("notices", known, place)
        return await audience.snapshots.shared(key, lambda: _read(store, audience, known, place))

    @router.get("/notices")
    async def notices(request: Request) -> HTMLResponse:
        """Answer with the page."""

        async def read() -> tuple[int, dict[str, Any]]:
            return 200, {"notices": await html(request)}

        return await page(request, audiences.of(request), "fleet/notices_page.html", read)

    @router.get("/parts/notices")
    async def notices_part(request: Request) -> HTMLResponse:
        """Answer with the notices alone."""
        return part(await html(request))

    return router


async def _read(store: Store, audience: Audience, kind: str, before: int | None) -> str:
    async with store.reading() as connection:
        now_open = await notice_page(connection, NoticeFilter(True, kind, audience.sites), size=200)
        closed = await notice_page(
            connection, NoticeFilter(False, kind, audience.sites), before=before, size=NOTICES_ON_PAGE + 1
        )
    more = closed[NOTICES_ON_PAGE - 1].number if len(closed) > NOTICES_ON_PAGE else None
    return render(
        "fleet/notices.html",
        open_notices=now_open,
        closed=closed[:NOTICES_ON_PAGE],
        more=more,
        kind=kind,
        kinds=KIND_WORDS,
        of_devices=[item.value for item in DEVICE_KINDS],
    )
