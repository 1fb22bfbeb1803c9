"""Outbox: messages to other systems, durable until a sink has taken them, at least once each.

A message is written in the transaction of the change that it reports. `delivery_id` stays the same when it is sent
again, so that a receiver can tell a repetition.
"""

import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.engine import Store
from cloud.store.schema import deliveries

SINK_PREFIX = "webhook:"
"""Beginning of the names of the sinks of webhooks; the settings allow no colon in a name."""

MAX_WAITING = 10_000  # messages of one sink; the oldest are dropped


@dataclass(frozen=True, slots=True)
class WaitingDelivery:
    """Message that waits for a sink; `attempts` have failed so far."""

    number: int
    delivery_id: str
    sink: str
    message: dict[str, Any]
    created_at_s: float
    attempts: int


async def add_deliveries(connection: AsyncConnection, sinks: Collection[str], message: Mapping[str, Any]) -> None:
    """Add a message for each sink inside the transaction of its change."""
    now_s = time.time()
    rows = []
    for sink in sinks:
        delivery_id = str(uuid.uuid4())
        rows.append(
            {
                "delivery_id": delivery_id,
                "sink": sink,
                "message": {"delivery_id": delivery_id, **message},
                "created_at_s": now_s,
                "next_try_at_s": now_s,
                "attempts": 0,
                "error": "",
            }
        )
    if rows:
        await connection.execute(insert(deliveries), rows)


async def due(store: Store, sink: str, now_s: float, size: int) -> Sequence[WaitingDelivery]:
    """Return the first messages of a sink that may be tried now."""
    columns = (deliveries.c[name] for name in WaitingDelivery.__dataclass_fields__)
    query = (
        select(*columns)
        .where(deliveries.c.sink == sink, deliveries.c.next_try_at_s <= now_s)
        .order_by(deliveries.c.next_try_at_s, deliveries.c.number)
        .limit(size)
    )
    async with store.reading() as connection:
        return [WaitingDelivery(**row) for row in (await connection.execute(query)).mappings()]


async def delivered(store: Store, numbers: Collection[int]) -> None:
    """Delete messages that their sink has taken."""
    async with store.writing() as connection:
        await connection.execute(delete(deliveries).where(deliveries.c.number.in_(numbers)))


async def failed(store: Store, delivery: WaitingDelivery, next_try_at_s: float, error: str) -> None:
    """Note a failed attempt: the sink's other messages are tried before this one again."""
    noted = {"attempts": delivery.attempts + 1, "error": error[:400], "next_try_at_s": next_try_at_s}
    async with store.writing() as connection:
        await connection.execute(update(deliveries).where(deliveries.c.number == delivery.number).values(noted))


async def drop_old(store: Store, sinks: Collection[str], before_s: float) -> int:
    """Delete messages of unknown sinks, those made before a time, and those beyond MAX_WAITING; return their number.

    Messages of a webhook are deleted with it (cloud.store.webhooks), so a new one is not unknown here.
    """
    dropped = 0
    async with store.writing() as connection:
        is_unknown = deliveries.c.sink.not_in(sinks) & deliveries.c.sink.not_like(f"{SINK_PREFIX}%")
        old = is_unknown | (deliveries.c.created_at_s < before_s)
        dropped += (await connection.execute(delete(deliveries).where(old))).rowcount
        for sink in sinks:
            of_sink = deliveries.c.sink == sink
            newest = select(deliveries.c.number).where(of_sink).order_by(deliveries.c.number.desc())
            limit = (await connection.execute(newest.offset(MAX_WAITING).limit(1))).scalar_one_or_none()
            if limit is not None:
                beyond = delete(deliveries).where(of_sink, deliveries.c.number <= limit)
                dropped += (await connection.execute(beyond)).rowcount
    return dropped


async def waiting(connection: AsyncConnection) -> dict[str, tuple[int, str]]:
    """Return by sink the number of messages that wait, and the newest error; empty where none has failed."""
    query = select(deliveries.c.sink, func.count()).group_by(deliveries.c.sink)
    found = {}
    for sink, count in (await connection.execute(query)).all():
        errors = select(deliveries.c.error).where(deliveries.c.sink == sink, deliveries.c.attempts > 0)
        # A sink is tried again after the wait, so the message that failed last is the last to be due.
        newest = errors.order_by(deliveries.c.next_try_at_s.desc(), deliveries.c.number.desc()).limit(1)
        found[sink] = (count, (await connection.execute(newest)).scalar_one_or_none() or "")
    return found
