"""Links that show one verdict to people without an account: each ends by itself, and can be revoked before."""

import secrets
import time
import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store import audit
from cloud.store.audit import AuditAction
from cloud.store.engine import Store
from cloud.store.sample_keys import is_sample
from cloud.store.schema import samples, share_links
from cloud.store.sessions import secret_hash
from shared.errors import DataError

MAX_SHARES = 20  # links of one sample that have not ended
KEPT_AFTER_END_S = 30 * 86_400.0
MAX_SECRET_CHARACTERS = 64


class TooManySharesError(DataError):
    """A sample has as many links as it may have."""


@dataclass(frozen=True, slots=True)
class ShareLink:
    """One link, without its secret. `opened`: how often its page was opened, last at `opened_at_s`."""

    share_id: str
    sample_id: uuid.UUID
    created_by: str
    created_at_s: float
    expires_at_s: float
    revoked_at_s: float | None
    opened: int
    opened_at_s: float | None

    def is_valid(self, now_s: float) -> bool:
        """Return whether the link still shows its verdict."""
        return self.revoked_at_s is None and now_s < self.expires_at_s


async def add_share(store: Store, sample_id: uuid.UUID, valid_s: float, actor: str) -> tuple[ShareLink, str] | None:
    """Return a new link and its secret; None for an unknown sample. Delete links that ended long ago.

    Raises TooManySharesError beyond MAX_SHARES, StorageError if it cannot be written.
    """
    now_s, secret, share_id = time.time(), secrets.token_urlsafe(32), secrets.token_hex(8)
    async with store.writing() as connection:
        found = select(samples.c.number).where(is_sample(connection, sample_id.bytes))
        number = (await connection.execute(found)).scalar_one_or_none()
        if number is None:
            return None
        ended = share_links.c.expires_at_s <= now_s - KEPT_AFTER_END_S
        await connection.execute(delete(share_links).where(ended))
        query = (
            select(func.count()).select_from(share_links).where(share_links.c.sample_number == number, _valid(now_s))
        )
        if (await connection.execute(query)).scalar_one() >= MAX_SHARES:
            raise TooManySharesError(f"This verdict has {MAX_SHARES} links, the largest number: revoke one first.")
        values = {"sample_number": number, "created_by": actor, "created_at_s": now_s, "expires_at_s": now_s + valid_s}
        adding = insert(share_links).values(share_id=share_id, secret_sha256=secret_hash(secret), **values)
        await connection.execute(adding)
        details = {"share": share_id, "expires_at_s": now_s + valid_s}
        await audit.record(connection, actor, AuditAction.SHARE_MADE, str(sample_id), **details)
    return ShareLink(share_id, sample_id, actor, now_s, now_s + valid_s, None, 0, None), secret


async def shares_of(connection: AsyncConnection, sample_id: uuid.UUID) -> tuple[ShareLink, ...]:
    """Return the links of a sample that are still kept, newest first."""
    query = _listed().where(is_sample(connection, sample_id.bytes)).order_by(share_links.c.created_at_s.desc())
    return tuple(_share(row) for row in (await connection.execute(query)).mappings())


async def find_share(connection: AsyncConnection, secret: str) -> ShareLink | None:
    """Return the link with this secret; None for one that is unknown, has ended or was revoked."""
    if not 0 < len(secret) <= MAX_SECRET_CHARACTERS:
        return None
    query = _listed().where(share_links.c.secret_sha256 == secret_hash(secret), _valid(time.time()))
    row = (await connection.execute(query)).mappings().one_or_none()
    return _share(row) if row is not None else None


async def note_opened(store: Store, share: ShareLink, address: str) -> None:
    """Count that the page of a link was opened; the first time is audited. Raises StorageError."""
    async with store.writing() as connection:
        counted = update(share_links).where(share_links.c.share_id == share.share_id)
        await connection.execute(counted.values(opened=share_links.c.opened + 1, opened_at_s=time.time()))
        if not share.opened:
            details = {"share": share.share_id, "address": address}
            await audit.record(connection, "share", AuditAction.SHARE_OPENED, str(share.sample_id), **details)


async def revoke_share(store: Store, sample_id: uuid.UUID, share_id: str, actor: str) -> bool:
    """Revoke a link of a sample at once; return False if there is none that is valid."""
    now_s = time.time()
    async with store.writing() as connection:
        number = select(samples.c.number).where(is_sample(connection, sample_id.bytes)).scalar_subquery()
        own = share_links.c.share_id == share_id, share_links.c.sample_number == number, _valid(now_s)
        revoked = await connection.execute(update(share_links).where(*own).values(revoked_at_s=now_s))
        if not revoked.rowcount:
            return False
        await audit.record(connection, actor, AuditAction.SHARE_REVOKED, str(sample_id), share=share_id)
    return True


def _valid(now_s: float) -> ColumnElement[bool]:
    return share_links.c.revoked_at_s.is_(None) & (share_links.c.expires_at_s > now_s)


def _listed() -> Select[Any]:
    columns = [column for column in share_links.c if column.name not in ("secret_sha256", "sample_number")]
    return select(*columns, samples.c.sample_id).join(samples, samples.c.number == share_links.c.sample_number)


def _share(row: RowMapping) -> ShareLink:
    return ShareLink(**{**row, "sample_id": uuid.UUID(bytes=row["sample_id"])})
