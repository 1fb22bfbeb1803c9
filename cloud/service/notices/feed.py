"""Feed of verdicts into the outbox of a sink, from a durable key on.

Verdicts that a mute hides are passed over. Which ones these are is known once the verdict has a review item, so while
there are active mutes the feed waits for it, at most ITEM_WAIT_S; then the message is sent.
"""

import time
from collections.abc import Collection, Sequence

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.service.notices.messages import VerdictSink, verdict_message, wants_verdict
from cloud.store import Store
from cloud.store.export_queries import Exported, ExportSelection, export_page
from cloud.store.outbox import SINK_PREFIX, add_deliveries
from cloud.store.review.mutes import has_active_mute, hidden_members
from cloud.store.schema import DEFAULT_PLACE, deliveries, devices, verdict_feeds
from cloud.store.verdict_keys import VerdictKey
from shared.samples import Decision

SETTLED_S = 5.0  # a verdict is stored by then, so that no later one sorts before it
ITEM_WAIT_S = 60.0
PAGE_SIZE = 200
MOST_WAITING = 1000  # messages of a sink that does not answer; further verdicts wait in the store


async def feed_verdicts(store: Store, sink: VerdictSink, now_s: float | None = None) -> bool:
    """Put the next verdicts that the sink wants into its outbox; return whether more may follow at once.

    A new sink begins with the verdicts from now on. Raises StorageError.
    """
    now_s = time.time() if now_s is None else now_s
    until_s = now_s - SETTLED_S
    async with store.reading() as connection:
        key = await _key(connection, sink.sink)
        if key is not None and await _waiting(connection, sink.sink) < MOST_WAITING:
            page = await export_page(connection, ExportSelection(None, until_s), key, PAGE_SIZE)
            is_full = len(page) == PAGE_SIZE
            page, hidden = await _without_hidden(connection, page, now_s)
            places = await _places(connection, {item.record.device_id for item in page})
        else:
            page, places, hidden, is_full = (), {}, frozenset[int](), False
    if key is None and sink.sink.startswith(SINK_PREFIX):
        return False  # a webhook begins with its creation; this one was deleted
    if key is None:
        async with store.writing() as connection:
            values = {"sink": sink.sink, "judged_at_s": until_s, "number": 0}
            await connection.execute(insert(verdict_feeds).values(values))
        return False
    if not page:
        return False
    elsewhere = (DEFAULT_PLACE, DEFAULT_PLACE)
    messages = [verdict_message(item.record, *places.get(item.record.device_id, elsewhere)) for item in page]
    last = page[-1].record
    async with store.writing() as connection:
        if await _advance(connection, sink.sink, key, VerdictKey(last.judged_at_s, last.number)):
            for item, message in zip(page, messages, strict=True):
                if item.record.number not in hidden and wants_verdict(sink, message):
                    await add_deliveries(connection, [sink.sink], message)
    return is_full


async def forget_feeds(store: Store, sinks: Collection[str]) -> None:
    """Delete the keys of all other sinks of the settings: one that is added again begins with later verdicts."""
    name = verdict_feeds.c.sink
    async with store.writing() as connection:
        await connection.execute(delete(verdict_feeds).where(name.not_in(sinks), name.not_like(f"{SINK_PREFIX}%")))


async def _without_hidden(
    connection: AsyncConnection, page: Sequence[Exported], now_s: float
) -> tuple[Sequence[Exported], frozenset[int]]:
    """Return the verdicts up to the first one that waits for its item, and the numbers of those that mutes hide."""
    asking = [item.record.number for item in page if item.record.decision is not Decision.NORMAL]
    if not asking or not await has_active_mute(connection, now_s):
        return page, frozenset()
    found = await hidden_members(connection, asking)
    for place, item in enumerate(page):
        waits = item.record.decision is not Decision.NORMAL and item.record.number not in found
        if waits and now_s - item.record.judged_at_s < ITEM_WAIT_S:
            page = page[:place]
            break
    return page, frozenset(number for number, is_hidden in found.items() if is_hidden)


async def _key(connection: AsyncConnection, sink: str) -> VerdictKey | None:
    query = select(verdict_feeds.c.judged_at_s, verdict_feeds.c.number).where(verdict_feeds.c.sink == sink)
    row = (await connection.execute(query)).one_or_none()
    return VerdictKey(*row) if row is not None else None


async def _advance(connection: AsyncConnection, sink: str, before: VerdictKey, after: VerdictKey) -> bool:
    """Move the key; return False if another process moved it first."""
    feeds = verdict_feeds.c
    same = (feeds.sink == sink) & (feeds.judged_at_s == before.judged_at_s) & (feeds.number == before.number)
    moved = update(verdict_feeds).where(same).values(judged_at_s=after.judged_at_s, number=after.number)
    return (await connection.execute(moved)).rowcount > 0


async def _waiting(connection: AsyncConnection, sink: str) -> int:
    query = select(func.count()).select_from(deliveries).where(deliveries.c.sink == sink)
    return int((await connection.execute(query)).scalar_one())


async def _places(connection: AsyncConnection, device_ids: set[str]) -> dict[str, tuple[str, str]]:
    query = select(devices.c.device_id, devices.c.site, devices.c.group_name).where(devices.c.device_id.in_(device_ids))
    return {device_id: (site, group) for device_id, site, group in await connection.execute(query)}
