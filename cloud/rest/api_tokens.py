"""Routes of the tokens of the HTTP API; the answer to a new one alone holds its secret."""

import secrets
import time
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from cloud.moments import with_rfc3339
from cloud.rest.access import caller_of, needs
from cloud.rest.problems import WITH_BODY, Problem, not_found
from cloud.rest.routers import api_router
from cloud.store import Store
from cloud.store.api_tokens import (
    MAX_NAME_CHARACTERS,
    ApiToken,
    Scope,
    add_api_token,
    list_api_tokens,
    new_token_id,
    revoke_api_token,
    token_text,
)
from shared.errors import SettingsError

_DAY_S = 86_400.0
TokenId = Annotated[str, Path(pattern="^[a-z0-9]{1,16}$")]


class ApiTokenBody(BaseModel):
    """A token to make, with rights that its maker has."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=MAX_NAME_CHARACTERS, pattern=r"^[^\x00-\x1f]+$")
    scopes: list[Scope] = Field(min_length=1, max_length=len(Scope))
    days: float = Field(default=90.0, ge=0.001, le=3660, allow_inf_nan=False)


class ApiTokenItem(BaseModel):
    """One token without its secret."""

    token_id: str
    name: str
    scopes: list[str]
    created_at: str
    expires_at: str
    revoked_at: str | None
    last_used_at: str | None
    is_valid: bool


class NewApiTokenItem(ApiTokenItem):
    """A token that was made; `token` is shown here only."""

    token: str


class ApiTokenList(BaseModel):
    """All tokens, also expired and revoked ones, oldest first."""

    items: list[ApiTokenItem]


def api_token_routes(reading: Store, writing: Store) -> APIRouter:
    """Return the routes of tokens."""
    router = api_router("tokens")

    @router.get("/api-tokens", response_model=ApiTokenList, **needs(Scope.API_TOKENS_READ))
    async def list_tokens() -> dict[str, Any]:
        """Return all tokens without their secrets."""
        now_s = time.time()
        return {"items": [_item(token, now_s) for token in await list_api_tokens(reading)]}

    @router.post(
        "/api-tokens", response_model=NewApiTokenItem, status_code=201, **needs(Scope.API_TOKENS_WRITE, *WITH_BODY)
    )
    async def make_token(request: Request, body: ApiTokenBody) -> dict[str, Any]:
        """Make a token; no token gives more rights than its maker has."""
        caller, now_s = caller_of(request), time.time()
        if beyond := sorted({scope.value for scope in body.scopes} - caller.scopes):
            raise Problem(403, "scope-missing", f"The caller lacks {', '.join(beyond)}: a token cannot have more.")
        token_id, secret = new_token_id(), secrets.token_urlsafe(32)
        made = await add_api_token(
            writing,
            token_id,
            secret,
            name=body.name,
            scopes=sorted(set(body.scopes)),
            expires_at_s=now_s + body.days * _DAY_S,
            actor=caller.actor,
        )
        return _item(made, now_s) | {"token": token_text(token_id, secret)}

    @router.delete("/api-tokens/{token_id}", status_code=204, **needs(Scope.API_TOKENS_WRITE, 404))
    async def revoke_token(request: Request, token_id: TokenId) -> None:
        """Revoke a token at once; it stays in the list."""
        try:
            await revoke_api_token(writing, token_id, caller_of(request).actor)
        except SettingsError:
            raise not_found(f"Token {token_id}") from None

    return router


def _item(token: ApiToken, now_s: float) -> dict[str, Any]:
    return {**with_rfc3339(asdict(token)), "is_valid": token.is_valid(now_s)}
