"""Route of notices."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from cloud.moments import with_rfc3339
from cloud.notice_kinds import NoticeKind
from cloud.rest.access import caller_of, needs
from cloud.rest.pages import CursorText, Size, next_cursor, page, read_cursor
from cloud.rest.routers import api_router
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.notices import NoticeFilter, notice_page


class NoticeItem(BaseModel):
    """One notice; `closed_at` is null while it is open."""

    notice_id: str
    kind: NoticeKind
    subject: str
    text: str
    opened_at: str
    closed_at: str | None


class NoticePage(BaseModel):
    """Page of notices, newest first; `next` is null on the last page."""

    items: list[NoticeItem]
    next: str | None


def notice_routes(store: Store) -> APIRouter:
    """Return the route of notices."""
    router = api_router("notices")

    @router.get("/notices", response_model=NoticePage, **needs(Scope.NOTICES_READ))
    async def list_notices(
        request: Request,
        state: Annotated[Literal["open", "closed"] | None, Query(description="Default: both.")] = None,
        kind: NoticeKind | None = None,
        cursor: CursorText = "",
        size: Size = 50,
    ) -> dict[str, Any]:
        """Return one page of notices, newest first."""
        is_open = None if state is None else state == "open"
        wanted = NoticeFilter(is_open, kind.value if kind is not None else "", caller_of(request).sites)
        key = read_cursor(request, cursor, int)
        before = key[0] if key is not None else None
        async with store.reading() as connection:
            found = await notice_page(connection, wanted, before=before, size=size + 1)
        following = next_cursor(request, found[size - 1].number) if len(found) > size else None
        return page([with_rfc3339(asdict(item)) for item in found[:size]], following)

    return router
