"""Sessions of signed-in browsers; the store keeps a hash of the secret in the cookie."""

import hashlib
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store import audit
from cloud.store.audit import AuditAction
from cloud.store.engine import Store
from cloud.store.schema import sessions, users
from cloud.store.users import User, actor_of, user_of

SEEN_STEP_S = 60.0  # the time of the last request is stored at most once a minute
_MAX_ADDRESS, _MAX_BROWSER = 64, 200


@dataclass(frozen=True, slots=True)
class Session:
    """One session of an account."""

    secret_sha256: str
    session_id: str
    user: User
    started_at_s: float
    seen_at_s: float
    expires_at_s: float
    address: str
    browser: str

    def is_valid(self, now_s: float, idle_s: float) -> bool:
        """Return whether it gives access after at most `idle_s` seconds without a request."""
        return now_s < self.expires_at_s and now_s < self.seen_at_s + idle_s and self.user.disabled_at_s is None


@dataclass(frozen=True, slots=True)
class NewSession:
    """Secrets and facts of a session that starts.

    `method`: way of the sign-in, for the audit log. `replaces`: secret of the session that the browser had, or "".
    """

    secret: str
    session_id: str
    user_name: str
    method: str
    address: str
    browser: str
    idle_s: float
    max_s: float
    replaces: str = ""


def secret_hash(secret: str) -> str:
    """Return the SHA-256 of a secret of 256 random bits, which needs no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


async def start_session(connection: AsyncConnection, new: NewSession) -> None:
    """Add a session inside a transaction; delete the one that it replaces, and those that have expired."""
    now_s = time.time()
    over = or_(
        sessions.c.expires_at_s <= now_s,
        sessions.c.seen_at_s <= now_s - new.idle_s,
        sessions.c.secret_sha256 == secret_hash(new.replaces),
    )
    await connection.execute(delete(sessions).where(over))
    values = {
        "secret_sha256": secret_hash(new.secret),
        "session_id": new.session_id,
        "user_name": new.user_name,
        "started_at_s": now_s,
        "seen_at_s": now_s,
        "expires_at_s": now_s + new.max_s,
        "address": new.address[:_MAX_ADDRESS],
        "browser": new.browser[:_MAX_BROWSER].replace("\0", ""),
    }
    await connection.execute(insert(sessions).values(**values))
    await connection.execute(update(users).where(users.c.name == new.user_name).values(signed_in_at_s=now_s))
    details = {"session": new.session_id, "method": new.method, "address": new.address}
    actor = actor_of(new.user_name)
    await audit.record(connection, actor, AuditAction.SESSION_STARTED, new.user_name, **details)


async def find_sessions(store: Store, hashes: Collection[str]) -> dict[str, Session]:
    """Return the sessions with these hashes of their secrets, also expired ones."""
    return {session.secret_sha256: session for session in await _select(store, sessions.c.secret_sha256.in_(hashes))}


async def sessions_of(store: Store, user_name: str) -> Sequence[Session]:
    """Return the sessions of an account, the newest first."""
    return await _select(store, sessions.c.user_name == user_name)


async def note_seen(store: Store, session: Session, now_s: float) -> None:
    """Store the time of a request, at most once a minute."""
    if now_s - session.seen_at_s >= SEEN_STEP_S:
        seen = update(sessions).where(sessions.c.secret_sha256 == session.secret_sha256)
        async with store.writing() as connection:
            await connection.execute(seen.values(seen_at_s=now_s))


async def end_sessions(
    store: Store, user_name: str, *, actor: str, only: str = "", keep: str = "", reason: str = ""
) -> int:
    """End the sessions of an account: all, the one with the id `only`, or all but `keep`; return their number."""
    ended = delete(sessions).where(sessions.c.user_name == user_name, sessions.c.session_id != keep)
    if only:
        ended = ended.where(sessions.c.session_id == only)
    async with store.writing() as connection:
        count = (await connection.execute(ended)).rowcount
        if count:
            details = {"sessions": count, "reason": reason}
            await audit.record(connection, actor, AuditAction.SESSIONS_ENDED, user_name, **details)
    return count


async def _select(store: Store, condition: Any) -> list[Session]:
    query = (
        select(*(column.label(f"session_{column.name}") for column in sessions.c), *users.c)
        .join(users, users.c.name == sessions.c.user_name)
        .where(condition)
        .order_by(sessions.c.started_at_s.desc(), sessions.c.session_id)
    )
    async with store.reading() as connection:
        rows = [dict(row) for row in (await connection.execute(query)).mappings()]
    return [_session(row) for row in rows]


def _session(row: dict[str, Any]) -> Session:
    prefix = "session_"
    own = {name.removeprefix(prefix): row.pop(name) for name in list(row) if name.startswith(prefix)}
    del own["user_name"]
    return Session(user=user_of(row), **own)
