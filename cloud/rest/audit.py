"""Route of the audit log."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from cloud.moments import rfc3339
from cloud.rest.access import needs
from cloud.rest.pages import CursorText, Name, Size, TimeText, next_cursor, page, read_cursor, time_or_none
from cloud.rest.routers import api_router
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.audit import AuditAction, AuditEntry, AuditFilter, audit_page


class AuditItem(BaseModel):
    """One change of state: `actor` made it to `subject`."""

    number: int
    at: str
    actor: str
    action: str
    subject: str
    details: dict[str, Any]


class AuditPage(BaseModel):
    """Page of the audit log, newest first; `next` is null on the last page."""

    items: list[AuditItem]
    next: str | None


def audit_routes(store: Store) -> APIRouter:
    """Return the route of the audit log."""
    router = api_router("audit")

    @router.get("/audit", response_model=AuditPage, **needs(Scope.AUDIT_READ))
    async def list_changes(
        request: Request,
        actor: Name = "",
        action: AuditAction | None = None,
        subject: Name = "",
        since: Annotated[TimeText, Query(alias="from", description="Made at this time or later.")] = "",
        until: Annotated[TimeText, Query(alias="to", description="Made before this time.")] = "",
        cursor: CursorText = "",
        size: Size = 50,
    ) -> dict[str, Any]:
        """Return one page of changes, newest first."""
        wanted = AuditFilter(actor, action or "", subject, time_or_none(since), time_or_none(until))
        key = read_cursor(request, cursor, int)
        before = key[0] if key is not None else None
        async with store.reading() as connection:
            found = await audit_page(connection, wanted, before=before, size=size + 1)
        following = next_cursor(request, found[size - 1].number) if len(found) > size else None
        return page([_item(entry) for entry in found[:size]], following)

    return router


def _item(entry: AuditEntry) -> dict[str, Any]:
    return {
        "number": entry.number,
        "at": rfc3339(entry.at_s),
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "details": entry.details,
    }
