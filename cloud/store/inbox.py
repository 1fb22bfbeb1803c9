"""Inbox: accepted requests as they came, durable before their samples become rows.

Storing a request costs one row, whatever its number of samples. The analysis unpacks requests into samples when it
needs the next batch, so a device waits for neither rows nor indices. A sample becomes exactly one row: the unique key
of `samples` finds those that were sent twice, and a request leaves the inbox in the transaction of its rows.
"""

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from sqlalchemy import CTE, Integer, Select, bindparam, false, func, literal, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store import claims
from cloud.store.engine import Store
from cloud.store.inbox_request import Doubles
from cloud.store.sample_keys import may_wait
from cloud.store.schema import inbox, samples

MAX_UNPACKED_SAMPLES = 1024  # in one transaction, unless a request alone has more
MAX_UNPACKED_BYTES = 16 * 2**20
MAX_SEARCHED_REQUESTS, MAX_SEARCHED_BYTES = 512, 8 * 2**20  # for one sample


@dataclass(frozen=True, slots=True)
class _Queued:
    """Request in the inbox; `rank`: samples of its device that wait already or are in requests before it."""

    number: int
    samples: int
    size: int
    rank: int


async def unpack_next(store: Store, limit: int, without: Collection[int] = ()) -> list[Doubles]:
    """Unpack the requests that the next `limit` waiting samples need; return the samples that were rows already.

    `without`: numbers of waiting samples that do not count, because they are being judged.
    Each device gets an equal share of `limit`, less its samples that wait already, so no device delays another. The
    cost depends on `limit` and the number of devices, not on the size of the inbox.
    """
    async with store.reading() as connection:
        devices = (await connection.execute(_number_of_devices())).scalar_one()
        if not devices:
            return []
        share = math.ceil(limit / devices)
        given, dialect = {"share": share, "without": sorted(without)}, connection.dialect.name
        waiting = {
            row.device_id: row.waiting for row in await connection.execute(_waiting(store.claimant, dialect), given)
        }
        rows = (await connection.execute(_oldest(dialect), {"share": share})).all()
    return await store.unpack(_affordable(_needed(rows, waiting, share)))


# Building a query takes longer than running it on a short queue.
@functools.cache
def _number_of_devices() -> Select[Any]:
    """Return the query for the number of devices with requests in the inbox."""
    return select(func.count()).select_from(_devices())


def _devices() -> CTE:
    """Return the devices with requests in the inbox: one look into the index for each."""
    first = select(func.min(inbox.c.device_id).label("device_id")).cte("inbox_queues", recursive=True)
    after = select(func.min(inbox.c.device_id)).where(inbox.c.device_id > first.c.device_id)
    every = first.union_all(select(after.scalar_subquery()).where(first.c.device_id.is_not(None)))
    return select(every.c.device_id).where(every.c.device_id.is_not(None)).cte("inbox_devices")


@functools.cache
def _waiting(claimant: str, dialect: str) -> Select[Any]:
    """Return the query for the number of free waiting samples of each device in the inbox, counted up to `share`.

    Its parameters are `share`, and `without`, numbers of samples that do not count.
    """
    device = _devices()
    free = (*may_wait(dialect, samples.c.number), *claims.is_free(claimant, samples.c.number))
    counted = samples.c.number.not_in(bindparam("without", expanding=True))
    waits = select(literal(1).label("one")).where(samples.c.device_id == device.c.device_id)
    some = waits.where(samples.c.judged == false(), *free, counted).limit(bindparam("share", type_=Integer))
    count = select(func.count()).select_from(some.correlate(device).subquery()).correlate(device).scalar_subquery()
    return select(device.c.device_id, count.label("waiting"))


@functools.cache
def _oldest(dialect: str) -> Select[Any]:
    """Return the query for the oldest requests of each device in the inbox, at most its parameter `share`."""
    device = _devices()
    queue = inbox.alias("queue")
    oldest = select(queue.c.number).where(queue.c.device_id == device.c.device_id)
    oldest = oldest.order_by(queue.c.number).limit(bindparam("share", type_=Integer)).correlate(device)
    if dialect == "postgresql":
        numbers = oldest.lateral()
        found = device.join(numbers, true()).join(inbox, inbox.c.number == numbers.c.number)
    else:
        found = device.join(inbox, inbox.c.number.in_(oldest))
    columns = (inbox.c.number, inbox.c.device_id, inbox.c.samples, func.length(inbox.c.data).label("size"))
    return select(*columns).select_from(found).order_by(inbox.c.number)


def _needed(rows: Sequence[Any], waiting: Mapping[str, int], share: int) -> list[_Queued]:
    """Return the requests that bring each device to `share` waiting samples."""
    ranks, needed = dict(waiting), list[_Queued]()
    for row in rows:
        rank = ranks.get(row.device_id, 0)
        if rank < share:
            needed.append(_Queued(row.number, row.samples, row.size, rank))
            ranks[row.device_id] = rank + row.samples
    return needed


def _affordable(queued: Sequence[_Queued]) -> list[int]:
    """Return the numbers of the next requests, devices in turn, up to the bounds of one transaction, at least one."""
    chosen, count, size = list[int](), 0, 0
    for request in sorted(queued, key=lambda item: (item.rank, item.number)):
        count, size = count + request.samples, size + request.size
        if chosen and (count > MAX_UNPACKED_SAMPLES or size > MAX_UNPACKED_BYTES):
            break
        chosen.append(request.number)
    return chosen


async def inbox_backlog(connection: AsyncConnection) -> list[tuple[str, int, int]]:
    """Return device, samples and bytes after decoding of the requests in the inbox."""
    totals = (func.sum(inbox.c.samples), func.sum(inbox.c.decoded_bytes))
    found = await connection.execute(select(inbox.c.device_id, *totals).group_by(inbox.c.device_id))
    return [(device_id, int(count), int(decoded)) for device_id, count, decoded in found]


async def oldest_arrival(connection: AsyncConnection) -> float | None:
    """Return when the first request in the inbox arrived, in seconds since the epoch; None if it is empty."""
    first = select(inbox.c.received_at_s).order_by(inbox.c.number).limit(1)
    return (await connection.execute(first)).scalar_one_or_none()


async def may_be_in_inbox(connection: AsyncConnection, sample_id: bytes) -> bool:
    """Return whether a request in the inbox holds the sample; True, too, if a long inbox is not searched to its end.

    Finds the first sample of each request by an index, and the others in the newest requests alone, up to
    MAX_SEARCHED_REQUESTS and MAX_SEARCHED_BYTES. So anybody may ask often.
    """
    first = select(inbox.c.number).where(inbox.c.first_sample_id == sample_id)
    if (await connection.execute(first)).first() is not None:
        return True
    newest = select(inbox.c.number, inbox.c.samples, func.length(inbox.c.data).label("size"))
    newest = newest.order_by(inbox.c.number.desc()).limit(MAX_SEARCHED_REQUESTS + 1)
    rows = (await connection.execute(newest)).all()
    sizes = accumulate(row.size for row in rows)
    searched = [row for row, size in zip(rows, sizes, strict=True) if size <= MAX_SEARCHED_BYTES]
    searched = searched[:MAX_SEARCHED_REQUESTS]
    find = func.pg_catalog.position if connection.dialect.name == "postgresql" else func.instr
    numbers = [row.number for row in searched if row.samples > 1]
    found = select(inbox.c.number).where(inbox.c.number.in_(numbers), find(inbox.c.data, sample_id) > 0).limit(1)
    if numbers and (await connection.execute(found)).first() is not None:
        return True
    return len(searched) < len(rows)
