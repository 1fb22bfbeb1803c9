"""Routes of links that show one verdict to people without an account."""

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from cloud.moments import rfc3339
from cloud.rest.access import caller_of, needs
from cloud.rest.problems import WITH_BODY, Problem, not_found
from cloud.rest.routers import api_router
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.share_links import ShareLink, TooManySharesError, add_share, revoke_share, shares_of

DAY_S = 86_400.0
ShareId = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]


class ShareBody(BaseModel):
    """A link to make; it ends after `days`."""

    model_config = ConfigDict(extra="forbid")

    days: float = Field(gt=0, le=365, allow_inf_nan=False)


class ShareItem(BaseModel):
    """One link, without its secret; `opened` counts how often its page was opened."""

    share_id: str
    created_by: str
    created_at: str
    expires_at: str
    revoked_at: str | None
    opened: int
    opened_at: str | None


class NewShareItem(ShareItem):
    """A link that was made; `path` holds its secret and is shown here only."""

    path: str


def share_routes(reading: Store, writing: Store, max_days: float) -> APIRouter:
    """Return the routes of links that are valid for at most `max_days`; 0: none can be made."""
    router = api_router("shares")

    @router.get("/verdicts/{sample_id}/shares", response_model=list[ShareItem], **needs(Scope.SHARES_WRITE))
    async def list_shares(sample_id: uuid.UUID) -> list[dict[str, Any]]:
        """Return the links of a verdict, newest first, also those that ended within the last 30 days."""
        async with reading.reading() as connection:
            return [_item(share) for share in await shares_of(connection, sample_id)]

    @router.post(
        "/verdicts/{sample_id}/shares",
        response_model=NewShareItem,
        status_code=201,
        **needs(Scope.SHARES_WRITE, 404, 409, *WITH_BODY),
    )
    async def post_share(request: Request, sample_id: uuid.UUID, body: ShareBody) -> dict[str, Any]:
        """Make a link that shows this verdict without an account; the answer alone holds its address."""
        if not max_days:
            raise Problem(409, "shares-off", "Links are off: explanations.share_days is 0 in cloud.toml.")
        if body.days > max_days:
            raise Problem(422, "too-long", f"A link is valid for at most {max_days:g} days (explanations.share_days).")
        try:
            made = await add_share(writing, sample_id, body.days * DAY_S, caller_of(request).actor)
        except TooManySharesError as error:
            raise Problem(409, "too-many-shares", str(error)) from None
        if made is None:
            raise not_found(f"Sample {sample_id}")
        share, secret = made
        return _item(share) | {"path": f"/shared/{secret}"}

    @router.delete("/verdicts/{sample_id}/shares/{share_id}", status_code=204, **needs(Scope.SHARES_WRITE, 404))
    async def delete_share(request: Request, sample_id: uuid.UUID, share_id: ShareId) -> None:
        """Revoke a link at once."""
        if not await revoke_share(writing, sample_id, share_id, caller_of(request).actor):
            raise not_found(f"Link {share_id}")

    return router


def _item(share: ShareLink) -> dict[str, Any]:
    return {
        "share_id": share.share_id,
        "created_by": share.created_by,
        "created_at": rfc3339(share.created_at_s),
        "expires_at": rfc3339(share.expires_at_s),
        "revoked_at": rfc3339(share.revoked_at_s) if share.revoked_at_s is not None else None,
        "opened": share.opened,
        "opened_at": rfc3339(share.opened_at_s) if share.opened_at_s is not None else None,
    }
