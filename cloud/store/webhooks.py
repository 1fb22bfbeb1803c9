"""Webhooks for verdicts that other programs made through the HTTP API.

A webhook is a sink like those of the settings: its messages wait in the outbox under `sink`, and a feed adds verdicts.
"""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store import audit
from cloud.store.engine import Store
from cloud.store.outbox import SINK_PREFIX
from cloud.store.schema import deliveries, verdict_feeds, webhooks

MAX_WEBHOOKS = 32
_ID_BYTES, _SECRET_BYTES = 6, 32


@dataclass(frozen=True, slots=True)
class NewWebhook:
    """Address of a webhook, and the verdicts that it gets; no site or no group: those of all."""

    url: str
    decisions: tuple[str, ...]
    sites: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredWebhook(NewWebhook):
    """Webhook in the store; `secret` signs its messages, which are verdicts."""

    webhook_id: str = ""
    secret: str = ""
    created_at_s: float = 0.0

    @property
    def sink(self) -> str:
        """Name of the sink in outbox and feeds."""
        return f"{SINK_PREFIX}{self.webhook_id}"

    @property
    def wants_verdicts(self) -> bool:
        """Whether it gets verdicts: always."""
        return True


async def add_webhook(store: Store, wanted: NewWebhook, actor: str) -> StoredWebhook | None:
    """Add a webhook with a secret of its own; None if there are MAX_WEBHOOKS already. Raises StorageError.

    It gets the verdicts from now on.
    """
    now_s = time.time()
    made = StoredWebhook(
        *(wanted.url, wanted.decisions, wanted.sites, wanted.groups),
        webhook_id=secrets.token_hex(_ID_BYTES),
        secret=secrets.token_hex(_SECRET_BYTES),
        created_at_s=now_s,
    )
    values: dict[str, Any] = {
        "webhook_id": made.webhook_id,
        "secret": made.secret,
        "url": made.url,
        "decisions": list(made.decisions),
        "sites": list(made.sites),
        "groups": list(made.groups),
        "created_at_s": now_s,
    }
    async with store.writing() as connection:
        count = (await connection.execute(select(func.count()).select_from(webhooks))).scalar_one()
        if count >= MAX_WEBHOOKS:
            return None
        await connection.execute(insert(webhooks).values(values))
        feed = {"sink": made.sink, "judged_at_s": now_s, "number": 0}
        await connection.execute(insert(verdict_feeds).values(feed))
        await audit.record(connection, actor, audit.AuditAction.WEBHOOK_ADDED, made.webhook_id, url=made.url)
    return made


async def stored_webhooks(connection: AsyncConnection) -> Sequence[StoredWebhook]:
    """Return all webhooks, oldest first."""
    query = select(webhooks).order_by(webhooks.c.created_at_s, webhooks.c.webhook_id)
    return [_stored(row) for row in (await connection.execute(query)).mappings()]


async def remove_webhook(store: Store, webhook_id: str, actor: str) -> bool:
    """Remove a webhook with the messages that wait for it; return False if there is none. Raises StorageError."""
    sink = f"{SINK_PREFIX}{webhook_id}"
    async with store.writing() as connection:
        removed = await connection.execute(delete(webhooks).where(webhooks.c.webhook_id == webhook_id))
        if not removed.rowcount:
            return False
        for table in (deliveries, verdict_feeds):
            await connection.execute(delete(table).where(table.c.sink == sink))
        await audit.record(connection, actor, audit.AuditAction.WEBHOOK_REMOVED, webhook_id)
    return True


def _stored(row: RowMapping) -> StoredWebhook:
    lists = {name: tuple(row[name]) for name in ("decisions", "sites", "groups")}
    return StoredWebhook(
        url=row["url"],
        **lists,
        webhook_id=row["webhook_id"],
        secret=row["secret"],
        created_at_s=row["created_at_s"],
    )
