"""One-time links: the first admin, a new password, a sign-in. The store keeps a hash of the secret."""

import time
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store import audit
from cloud.store.audit import AuditAction
from cloud.store.engine import Store
from cloud.store.schema import account_links, users
from cloud.store.sessions import secret_hash
from cloud.store.users import known
from shared.errors import SettingsError


class LinkPurpose(StrEnum):
    """What a one-time link is for."""

    FIRST_ADMIN = "first_admin"
    PASSWORD = "password"
    SIGN_IN = "sign_in"


@dataclass(frozen=True, slots=True)
class AccountLink:
    """A link that can still be spent; `user_name` is None for the first admin."""

    purpose: LinkPurpose
    user_name: str | None


async def add_link(
    store: Store,
    secret: str,
    purpose: LinkPurpose,
    *,
    valid_s: float,
    user_name: str | None = None,
    actor: str | None = None,
) -> None:
    """Store a new link for `valid_s` seconds, and delete the expired ones.

    Raises SettingsError for an unknown or disabled account, and for a first admin where there is an account.
    """
    now_s = time.time()
    async with store.writing() as connection:
        if user_name is not None:
            if (await known(connection, user_name)).disabled_at_s is not None:
                raise SettingsError(f"User {user_name!r} is disabled: vedette cloud user disable --undo {user_name}.")
        elif await _has_users(connection):
            raise SettingsError("There is an account already: vedette cloud user add makes another one.")
        await connection.execute(delete(account_links).where(account_links.c.expires_at_s <= now_s))
        values = {"purpose": purpose.value, "user_name": user_name, "created_at_s": now_s}
        await connection.execute(
            insert(account_links).values(secret_sha256=secret_hash(secret), expires_at_s=now_s + valid_s, **values)
        )
        details = {"purpose": purpose.value, "expires_at_s": now_s + valid_s}
        subject = user_name or "first admin"
        await audit.record(connection, actor or store.actor, AuditAction.LINK_MADE, subject, **details)


async def find_link(connection: AsyncConnection, secret: str) -> AccountLink | None:
    """Return the link with this secret; None for one that is unknown, expired, spent or void."""
    query = select(account_links.c.purpose, account_links.c.user_name).where(
        account_links.c.secret_sha256 == secret_hash(secret), account_links.c.expires_at_s > time.time()
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None or (row.user_name is None and await _has_users(connection)):
        return None
    return AccountLink(LinkPurpose(row.purpose), row.user_name)


async def spend_link(connection: AsyncConnection, secret: str) -> AccountLink | None:
    """Return the link like `find_link` and delete it, inside the transaction of what it is for."""
    found = await find_link(connection, secret)
    if found is not None:
        await connection.execute(delete(account_links).where(account_links.c.secret_sha256 == secret_hash(secret)))
    return found


async def _has_users(connection: AsyncConnection) -> bool:
    return (await connection.execute(select(users.c.name).limit(1))).first() is not None
