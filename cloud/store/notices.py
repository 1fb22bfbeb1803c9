"""Notices: problems that concern people, open until they end, one for each kind and subject."""

import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.notice_kinds import DEVICE_KINDS, NoticeKind
from cloud.store.engine import Store
from cloud.store.outbox import add_deliveries
from cloud.store.schema import deliveries, notices
from cloud.store.sites import by_sites

_OF_DEVICES = [kind.value for kind in DEVICE_KINDS]

NoticeKey: TypeAlias = tuple[str, str]  # kind and subject


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
    """Filter of notices; None, "" and () do not restrict. With `sites` only notices of their devices match."""

    is_open: bool | None = None
    kind: str = ""
    sites: tuple[str, ...] = ()


@dataclass(slots=True)
class Absences:
    """Times since when the problems of open notices are absent, in memory: after a restart the wait begins again."""

    close_after_s: float
    _since_s: dict[NoticeKey, float] = field(default_factory=dict)

    def over(self, absent: Collection[NoticeKey], now_s: float) -> list[NoticeKey]:
        """Return those of all absent problems that have been absent for `close_after_s`."""
        self._since_s = {key: self._since_s.get(key, now_s) for key in absent}
        return [key for key, since_s in self._since_s.items() if now_s - since_s >= self.close_after_s]


async def follow(
    store: Store,
    conditions: Collection[Condition],
    absences: Absences,
    message_of: Callable[[StoredNotice], dict[str, Any]],
    sinks_of: Callable[[str], Collection[str]],
    *,
    now_s: float,
) -> tuple[list[StoredNotice], list[StoredNotice]]:
    """Open a notice for each new condition, and close those that lack theirs for long enough; return both.

    The message of each change is in the outbox of the sinks of its kind, in the same transaction. Raises StorageError.
    """
    present = {(item.kind.value, item.subject[:256]): item for item in conditions}
    async with store.writing() as connection:
        known = {(item.kind, item.subject): item for item in await _open(connection)}
        opened = [await _add(connection, present[key], now_s) for key in present.keys() - known.keys()]
        closed = []
        for key in absences.over(known.keys() - present.keys(), now_s):
            this = notices.c.number == known[key].number
            await connection.execute(update(notices).where(this).values(closed_at_s=now_s))
            closed.append(StoredNotice(**(asdict(known[key]) | {"closed_at_s": now_s})))
        for notice in (*opened, *closed):
            await add_deliveries(connection, sinks_of(notice.kind), message_of(notice))
    return opened, closed


async def delete_notices_of(connection: AsyncConnection, device_id: str) -> None:
    """Delete the notices of a device, and the waiting messages about it and its verdicts."""
    await connection.execute(delete(notices).where(notices.c.kind.in_(_OF_DEVICES), notices.c.subject == device_id))
    told = {name: deliveries.c.message[name].as_string() for name in ("device_id", "kind", "subject")}
    about = told["kind"].in_(_OF_DEVICES) & (told["subject"] == device_id)
    await connection.execute(delete(deliveries).where((told["device_id"] == device_id) | about))


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
    if wanted.sites:
        query = query.where(notices.c.kind.in_(_OF_DEVICES), *by_sites(notices.c.subject, wanted.sites))
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
