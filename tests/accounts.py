"""Signed-in browsers for tests: a row of a session in place of a form and a hash of a password."""

import secrets
from dataclasses import dataclass

from cloud.accounts.requests import SESSION_COOKIE, csrf_token
from cloud.store import Store
from cloud.store.sessions import NewSession, start_session
from cloud.store.users import add_user, find_user
from cloud.user_roles import UserRole

CHEAP = {"password_memory_kib": 8, "password_passes": 1}
"""Settings of accounts under which a password costs nothing."""


@dataclass(frozen=True)
class Browser:
    """Secrets of a signed-in browser."""

    secret: str
    session_id: str

    @property
    def cookies(self) -> dict[str, str]:
        """The cookie of the session, as over plain HTTP on this machine."""
        return {SESSION_COOKIE: self.secret}

    @property
    def headers(self) -> dict[str, str]:
        """Headers of a request that may change something."""
        return {"Cookie": f"{SESSION_COOKIE}={self.secret}", "X-CSRF-Token": csrf_token(self.secret)}


async def sign_in(
    store: Store, role: UserRole = UserRole.VIEWER, name: str = "", sites: tuple[str, ...] = ()
) -> Browser:
    """Start a session of an account with this role, which is added if it is new."""
    name = name or str(role)
    browser = Browser(secrets.token_urlsafe(32), secrets.token_hex(6))
    facts = {"method": "test", "address": "127.0.0.1", "browser": "", "idle_s": 3600.0, "max_s": 3600.0}
    async with store.writing() as connection:
        if await find_user(connection, name) is None:
            await add_user(connection, name, role, actor="test", sites=sites)
        await start_session(connection, NewSession(browser.secret, browser.session_id, name, **facts))
    return browser
