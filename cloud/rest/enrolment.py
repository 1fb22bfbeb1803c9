"""Routes of enrolment tokens: made, listed and deleted; the answer to a new one alone holds its secret."""

import time
from dataclasses import asdict
from typing import Annotated, Any

import segno
from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from cloud.enrolment import Enrolment, NewToken
from cloud.moments import rfc3339, with_rfc3339
from cloud.rest.access import Caller, caller_of, needs
from cloud.rest.problems import WITH_BODY, Problem, not_found
from cloud.rest.routers import api_router
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.fleet import PLACE_PATTERN, Place, delete_token, device, open_tokens
from shared.errors import SettingsError

TokenId = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]
PlaceName = Annotated[str, Field(pattern=PLACE_PATTERN, max_length=64)]


class TokenBody(BaseModel):
    """A token to make; without `site` or `group` the device keeps the one that it has, or gets `default`."""

    model_config = ConfigDict(extra="forbid")

    device_id: PlaceName
    site: PlaceName | None = None
    group: PlaceName | None = None


class TokenItem(BaseModel):
    """One token that can still be spent, without its secret."""

    token_id: str
    device_id: str
    created_at: str
    expires_at: str
    site: str | None
    group: str | None


class TokenList(BaseModel):
    """All tokens that can still be spent, by device."""

    items: list[TokenItem]


class NewTokenItem(BaseModel):
    """A token that was made; `token`, `command` and `qr_svg` hold its secret and are shown here only."""

    token_id: str
    device_id: str
    expires_at: str
    token: str
    command: str
    qr_svg: str


def enrolment_routes(reading: Store, writing: Store, enrolment: Enrolment | None) -> APIRouter:
    """Return the routes; without `enrolment` no token can be made here."""
    router = api_router("devices")

    @router.get("/tokens", response_model=TokenList, **needs(Scope.DEVICES_READ))
    async def list_tokens(request: Request) -> dict[str, Any]:
        """Return the tokens that can still be spent, without their secrets."""
        found = await open_tokens(reading, time.time(), caller_of(request).sites)
        return {"items": [with_rfc3339(asdict(token)) for token in found]}

    @router.post("/tokens", response_model=NewTokenItem, status_code=201, **needs(Scope.DEVICES_WRITE, *WITH_BODY, 409))
    async def make_token(request: Request, body: TokenBody) -> dict[str, Any]:
        """Make a one-time token that enrols a device."""
        caller = caller_of(request)
        await _check_sites(reading, caller, body)
        if enrolment is None:
            raise Problem(409, "no-enrolment", "This process makes no tokens: use vedette cloud token.")
        try:
            place = Place(body.site, body.group)
            made = await enrolment.new_token(writing, body.device_id, place, actor=caller.actor)
        except SettingsError as error:
            raise Problem(409, "no-enrolment", str(error)) from None
        return _new_item(made)

    @router.delete("/tokens/{token_id}", status_code=204, **needs(Scope.DEVICES_WRITE, 404))
    async def remove_token(request: Request, token_id: TokenId) -> None:
        """Delete a token that can still be spent."""
        caller = caller_of(request)
        if not await delete_token(writing, token_id, time.time(), caller.sites, caller.actor):
            raise not_found(f"Token {token_id}")

    return router


async def _check_sites(reading: Store, caller: Caller, body: TokenBody) -> None:
    """Refuse a token for a device outside the sites of an account; raises Problem."""
    if not caller.sites:
        return
    known = await device(reading, body.device_id)
    places = [site for site in (body.site, known.site if known is not None else None) if site is not None]
    if not places or not set(places) <= set(caller.sites):
        detail = f"This account is for {', '.join(caller.sites)}: give one of its sites, and no device of another one."
        raise Problem(403, "other-site", detail)


def _new_item(made: NewToken) -> dict[str, Any]:
    code = segno.make(made.command, error="l", micro=False)
    svg = code.svg_inline(scale=4, border=3, dark="#000", light="#fff", omitsize=True)
    return {
        "token_id": made.token_id,
        "device_id": made.device_id,
        "expires_at": rfc3339(made.expires_at_s),
        "token": made.text,
        "command": made.command,
        "qr_svg": svg,
    }
