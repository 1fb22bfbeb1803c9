"""Notices: problems that concern people, open until they end, one for each kind and subject."""

import time
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.engine import Store
from cloud.store.outbox import add_deliveries
from cloud.store.schema import notices


class NoticeKind(StrEnum):
    """Kind of a notice."""

    DEVICE_SILENT = "device_silent"
    CERTIFICATE_EXPIRING = "certificate_expiring"
    DEVICE_DISK_FULL = "device_disk_full"
    SERVICE_DISK_FULL = "service_disk_full"
    ROLLOUT_HALTED = "rollout_halted"


@dataclass(frozen=True, slots=True)
class Condition:
    """Present problem; `text` is one sentence for people."""

    kind: NoticeKind
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class StoredNotice:
    """Notice in the store; `closed_at_s` is None while it is open."""

    number: int
    notice_id: str
    kind: str
    subject: str
    text: str
    opened_at_s: float
    closed_at_s: float | None


@dataclass(frozen=True, slots=True)
class NoticeFilter:
    """Filter of notices; None and "" do not restrict."""

    is_open: bool | None = None
    kind: str = ""


async def follow(
    store: Store,
    conditions: Collection[Condition],
    message_of: Callable[[StoredNotice], dict[str, Any]],
    sinks_of: Callable[[str], Collection[str]],
) -> tuple[list[StoredNotice], list[StoredNotice]]:
    """Open a notice for each new condition, and close those whose condition ended; return the opened and closed ones.

    The message of each change is in the outbox of the sinks of its kind, in the same transaction. Raises StorageError.
    """
    present = {(item.kind.value, item.subject[:256]): item for item in conditions}
    async with store.writing() as connection:
        known = {(item.kind, item.subject): item for item in await _open(connection)}
        now_s = time.time()
        opened = [await _add(connection, present[key], now_s) for key in present.keys() - known.keys()]
        closed = []
        for key in known.keys() - present.keys():
            this = notices.c.number == known[key].number
            await connection.execute(update(notices).where(this).values(closed_at_s=now_s))
            closed.append(StoredNotice(**(asdict(known[key]) | {"closed_at_s": now_s})))
        for notice in (*opened, *closed):
            await add_deliveries(connection, sinks_of(notice.kind), message_of(notice))
    return opened, closed


async def notice_page(
    connection: AsyncConnection, wanted: NoticeFilter, *, before: int | None = None, size: int = 50
) -> Sequence[StoredNotice]:
    """Return the newest `size` notices, or the next ones older than the notice number `before`."""
    query = select(notices).order_by(notices.c.number.desc()).limit(size)
    if wanted.is_open is not None:
        closed_at_s = notices.c.closed_at_s
        query = query.where(closed_at_s.is_(None) if wanted.is_open else closed_at_s.is_not(None))
    if wanted.kind:
        query = query.where(notices.c.kind == wanted.kind)
    if before is not None:
        query = query.where(notices.c.number < before)
    return [StoredNotice(**row) for row in (await connection.execute(query)).mappings()]


async def _open(connection: AsyncConnection) -> list[StoredNotice]:
    query = select(notices).where(notices.c.closed_at_s.is_(None))
    return [StoredNotice(**row) for row in (await connection.execute(query)).mappings()]


async def _add(connection: AsyncConnection, condition: Condition, now_s: float) -> StoredNotice:
    values: dict[str, Any] = {
        "notice_id": str(uuid.uuid4()),
        "kind": condition.kind.value,
        "subject": condition.subject[:256],
        "text": condition.text[:1000],
        "opened_at_s": now_s,
    }
    number = (await connection.execute(insert(notices).values(values).returning(notices.c.number))).scalar_one()
    return StoredNotice(number=number, closed_at_s=None, **values)
