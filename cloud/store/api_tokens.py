"""Tokens of the HTTP API: the store keeps a hash of the secret, the scopes and the time of the last use."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import func, insert, select, update

from cloud.store import audit
from cloud.store.engine import Store
from cloud.store.schema import api_tokens
from shared.errors import SettingsError

PREFIX = "vedette"
USE_STEP_S = 60.0  # the time of the last use is stored at most once a minute
MAX_NAME_CHARACTERS = 64
_ID_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_NO_SHA256 = "0" * 64


class Scope(StrEnum):
    """A right of a token."""

    VERDICTS_READ = "verdicts:read"
    LABELS_READ = "labels:read"
    LABELS_WRITE = "labels:write"
    SHARES_WRITE = "shares:write"
    REVIEW_READ = "review:read"
    REVIEW_MARK = "review:mark"
    REVIEW_DECIDE = "review:decide"
    CLASSES_WRITE = "classes:write"
    MUTES_READ = "mutes:read"
    MUTES_WRITE = "mutes:write"
    DEVICES_READ = "devices:read"
    DEVICES_WRITE = "devices:write"
    DEVICES_VIEW = "devices:view"
    GROUPS_READ = "groups:read"
    GROUPS_WRITE = "groups:write"
    BUNDLES_READ = "bundles:read"
    BUNDLES_DOWNLOAD = "bundles:download"
    COMPARISONS_READ = "comparisons:read"
    COMPARISONS_WRITE = "comparisons:write"
    NOTICES_READ = "notices:read"
    ROLLOUTS_READ = "rollouts:read"
    ROLLOUTS_WRITE = "rollouts:write"
    TRAINING_READ = "training:read"
    TRAINING_WRITE = "training:write"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    AUDIT_READ = "audit:read"
    USERS_READ = "users:read"
    USERS_WRITE = "users:write"
    API_TOKENS_READ = "api_tokens:read"
    API_TOKENS_WRITE = "api_tokens:write"
    SYSTEM_READ = "system:read"


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token without its secret."""

    token_id: str
    name: str
    scopes: tuple[str, ...]
    created_at_s: float
    expires_at_s: float
    revoked_at_s: float | None
    last_used_at_s: float | None

    @property
    def actor(self) -> str:
        """Return the name of the token in the audit log."""
        return f"api:{self.name} ({self.token_id})"

    def is_valid(self, now_s: float) -> bool:
        """Return whether the token gives access at `now_s`."""
        return self.revoked_at_s is None and now_s < self.expires_at_s


def new_token_id() -> str:
    """Return a random id that is easy to read out."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(12))


def token_text(token_id: str, secret: str) -> str:
    """Return the text of a token, as clients send it."""
    return f"{PREFIX}_{token_id}_{secret}"


async def add_api_token(
    store: Store,
    token_id: str,
    secret: str,
    *,
    name: str,
    scopes: Sequence[Scope],
    expires_at_s: float,
    actor: str | None = None,
) -> ApiToken:
    """Store a new token; id and secret must be random and new."""
    now_s, names = time.time(), [scope.value for scope in scopes]
    values = {"token_id": token_id, "name": name, "scopes": names, "created_at_s": now_s, "expires_at_s": expires_at_s}
    async with store.writing() as connection:
        await connection.execute(insert(api_tokens).values(secret_sha256=_sha256(secret), **values))
        details = {"name": name, "scopes": names, "expires_at_s": expires_at_s}
        await audit.record(connection, actor or store.actor, audit.AuditAction.API_TOKEN_MADE, token_id, **details)
    return ApiToken(token_id, name, tuple(names), now_s, expires_at_s, None, None)


async def list_api_tokens(store: Store) -> list[ApiToken]:
    """Return all tokens, also expired and revoked ones, oldest first."""
    query = select(*_COLUMNS).order_by(api_tokens.c.created_at_s, api_tokens.c.token_id)
    async with store.reading() as connection:
        return [_token(dict(row)) for row in (await connection.execute(query)).mappings()]


async def revoke_api_token(store: Store, token_id: str, actor: str | None = None) -> None:
    """Revoke a token at once; raises SettingsError for an unknown one."""
    async with store.writing() as connection:
        revoked = await connection.execute(
            update(api_tokens)
            .where(api_tokens.c.token_id == token_id)
            .values(revoked_at_s=func.coalesce(api_tokens.c.revoked_at_s, time.time()))
        )
        if revoked.rowcount == 0:
            raise SettingsError(f"No API token {token_id!r}: list the tokens with vedette cloud api-token --list.")
        await audit.record(connection, actor or store.actor, audit.AuditAction.API_TOKEN_REVOKED, token_id)


async def find_api_token(store: Store, text: str) -> ApiToken | None:
    """Return the token of a text with the right secret, also an expired or revoked one; None for any other text."""
    prefix, _, rest = text.partition("_")
    token_id, _, secret = rest.partition("_")
    if prefix != PREFIX or not token_id or not secret:
        return None
    query = select(*_COLUMNS, api_tokens.c.secret_sha256).where(api_tokens.c.token_id == token_id)
    async with store.reading() as connection:
        row = (await connection.execute(query)).mappings().one_or_none()
    values = dict(row) if row is not None else {}
    stored = values.pop("secret_sha256", _NO_SHA256)
    if not hmac.compare_digest(_sha256(secret), stored) or row is None:
        return None
    return _token(values)


async def note_use(store: Store, token: ApiToken, now_s: float) -> None:
    """Store the time of the last use, at most once a minute."""
    if token.last_used_at_s is not None and now_s - token.last_used_at_s < USE_STEP_S:
        return
    async with store.writing() as connection:
        await connection.execute(
            update(api_tokens).where(api_tokens.c.token_id == token.token_id).values(last_used_at_s=now_s)
        )


_COLUMNS = tuple(column for column in api_tokens.c if column.name != "secret_sha256")


def _token(values: Mapping[str, Any]) -> ApiToken:
    return ApiToken(**{**values, "scopes": tuple(values["scopes"])})


def _sha256(secret: str) -> str:
    # A plain hash is enough: the secret has 256 random bits.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
