"""Accounts of people: names, roles, sites and hashes of passwords."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store import audit
from cloud.store.audit import AuditAction
from cloud.store.engine import Store
from cloud.store.schema import account_links, sessions, users
from cloud.user_roles import UserRole
from shared.errors import SettingsError

MAX_NAME_CHARACTERS = 64
NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")
NAME_RULE = "A name has letters, digits and . _ @ + -, at most 64 of them, and starts with a letter or digit."


@dataclass(frozen=True, slots=True)
class User:
    """One account; without `sites` it is for all of them. `subject` names it at an OpenID Connect provider."""

    name: str
    role: UserRole
    sites: tuple[str, ...]
    has_password: bool
    subject: str | None
    created_at_s: float
    signed_in_at_s: float | None
    disabled_at_s: float | None

    @property
    def actor(self) -> str:
        """Return the name of the account in the audit log."""
        return actor_of(self.name)


def actor_of(name: str) -> str:
    """Return the name of an account in the audit log."""
    return f"account:{name}"


async def has_users(store: Store) -> bool:
    """Return whether there is any account."""
    async with store.reading() as connection:
        return (await connection.execute(select(users.c.name).limit(1))).first() is not None


async def list_users(store: Store) -> list[User]:
    """Return all accounts by name."""
    async with store.reading() as connection:
        rows = (await connection.execute(select(users).order_by(users.c.name))).mappings()
        return [user_of(dict(row)) for row in rows]


async def find_user(connection: AsyncConnection, name: str) -> tuple[User, str | None] | None:
    """Return an account and the hash of its password; None for an unknown name."""
    row = (await connection.execute(select(users).where(users.c.name == name))).mappings().one_or_none()
    return (user_of(dict(row)), row["password_hash"]) if row is not None else None


async def find_subject(connection: AsyncConnection, subject: str) -> User | None:
    """Return the account of a subject of an OpenID Connect provider."""
    row = (await connection.execute(select(users).where(users.c.subject == subject))).mappings().one_or_none()
    return user_of(dict(row)) if row is not None else None


async def add_user(
    connection: AsyncConnection,
    name: str,
    role: UserRole,
    *,
    actor: str,
    sites: Sequence[str] = (),
    password_hash: str | None = None,
    subject: str | None = None,
) -> None:
    """Add an account inside a transaction; raises SettingsError if the name is taken."""
    if await find_user(connection, name) is not None:
        raise SettingsError(f"User {name!r} exists already: choose another name.")
    values = {"name": name, "role": role.value, "sites": list(sites), "created_at_s": time.time()}
    await connection.execute(insert(users).values(password_hash=password_hash, subject=subject, **values))
    await audit.record(connection, actor, AuditAction.USER_ADDED, name, role=role.value, sites=list(sites))


async def set_role(
    store: Store, name: str, role: UserRole, sites: Sequence[str] | None = None, actor: str | None = None
) -> None:
    """Change the role of an account, and its sites unless None; its sessions end. Raises SettingsError."""
    async with store.writing() as connection:
        await change_role(connection, await known(connection, name), role, sites, actor=actor or store.actor)


async def change_role(
    connection: AsyncConnection, user: User, role: UserRole, sites: Sequence[str] | None, *, actor: str
) -> None:
    """Change role and sites inside a transaction; an actual change ends the sessions of the account."""
    after = {"role": role.value, "sites": list(user.sites if sites is None else sites)}
    before = {"role": user.role.value, "sites": list(user.sites)}
    if after == before:
        return
    await connection.execute(update(users).where(users.c.name == user.name).values(**after))
    await audit.record(connection, actor, AuditAction.USER_ROLE, user.name, before=before, after=after)
    await end_access(connection, user.name)


async def change_password(
    connection: AsyncConnection, name: str, password_hash: str, *, actor: str, keep_session: str = ""
) -> None:
    """Store a new hash inside a transaction; links of the account, and its sessions but `keep_session`, end."""
    await connection.execute(update(users).where(users.c.name == name).values(password_hash=password_hash))
    await audit.record(connection, actor, AuditAction.USER_PASSWORD, name)
    await end_access(connection, name, keep_session=keep_session)


async def replace_hash(connection: AsyncConnection, name: str, old_hash: str, new_hash: str) -> None:
    """Store a hash of the same password with newer parameters, unless the password has changed meanwhile."""
    changed = update(users).where(users.c.name == name, users.c.password_hash == old_hash)
    await connection.execute(changed.values(password_hash=new_hash))


async def set_disabled(store: Store, name: str, *, disabled: bool, actor: str | None = None) -> None:
    """Disable an account, which ends its sessions and links, or enable it again; raises SettingsError."""
    async with store.writing() as connection:
        user = await known(connection, name)
        if (user.disabled_at_s is not None) == disabled:
            return
        values = {"disabled_at_s": time.time() if disabled else None}
        await connection.execute(update(users).where(users.c.name == name).values(**values))
        action = AuditAction.USER_DISABLED if disabled else AuditAction.USER_ENABLED
        await audit.record(connection, actor or store.actor, action, name)
        if disabled:
            await end_access(connection, name)


async def known(connection: AsyncConnection, name: str) -> User:
    """Return an account; raises SettingsError for an unknown one."""
    found = await find_user(connection, name)
    if found is None:
        raise SettingsError(f"No user {name!r}: list the accounts with vedette cloud user list.")
    return found[0]


async def end_access(connection: AsyncConnection, name: str, *, keep_session: str = "") -> None:
    """Delete the links of an account, and its sessions but one."""
    await connection.execute(delete(account_links).where(account_links.c.user_name == name))
    ended = delete(sessions).where(sessions.c.user_name == name, sessions.c.session_id != keep_session)
    await connection.execute(ended)


def user_of(values: dict[str, Any]) -> User:
    """Return the account of a row of `users`."""
    hashed = values.pop("password_hash")
    values |= {"role": UserRole(values["role"]), "sites": tuple(values["sites"]), "has_password": hashed is not None}
    return User(**values)
