"""Numbers of near copies of a sample that stayed on its device, as heartbeats report them.

A device reports counts of its own samples alone, and a count never falls. A row has no foreign key to its sample, which
retention may drop in bulk; it is deleted by its own age.
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from sqlalchemy import ColumnElement, Delete, delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.engine import Store
from cloud.store.retention import in_chunks
from cloud.store.review.progress import raise_version
from cloud.store.sample_keys import are_samples
from cloud.store.schema import near_copies, review_members, samples
from cloud.store.upsert import upsert
from shared.status import NearCopies

_MAX_COPIES = 2**40  # bounds the sum over a review item to 64 bits
_ID_BYTES = 16
_DAY_S = 86_400.0


class StoredCopies(NamedTuple):
    """Number of near copies of a sample, and when the last one was captured by the device's clock; 0 without one."""

    copies: int = 0
    last_at_s: float = 0.0


NO_COPIES = StoredCopies()


async def store_near_copies(store: Store, device_id: str, counts: Sequence[NearCopies]) -> int:
    """Store the counts that are larger than before, of samples of this device; return how many.

    Counts are bounded, and ids of another length than 16 bytes are ignored. Raises StorageError.
    """
    largest: dict[bytes, NearCopies] = {}
    for item in counts:
        known = largest.get(item.sample_id)
        if len(item.sample_id) == _ID_BYTES and (known is None or item.copies > known.copies):
            largest[item.sample_id] = item
    if not largest:
        return 0
    async with store.reading() as connection:
        own = are_samples(connection, list(largest)), samples.c.device_id == device_id
        found = (await connection.execute(select(samples.c.number, samples.c.sample_id).where(*own))).all()
    now_s = time.time()
    rows = {
        number: {
            "number": number,
            "device_id": device_id,
            "copies": min(largest[sample_id].copies, _MAX_COPIES),
            "last_at_s": min(max(largest[sample_id].last_at_s, 0.0), now_s),
            "received_at_s": now_s,
        }
        for number, sample_id in found
    }
    if not rows:
        return 0
    async with store.writing() as connection:
        stored = select(near_copies.c.number, near_copies.c.copies).where(near_copies.c.number.in_(rows))
        before = {row.number: row.copies for row in await connection.execute(stored)}
        larger = [row for number, row in rows.items() if row["copies"] > before.get(number, 0)]
        await upsert(connection, near_copies, larger)
        if larger:
            await raise_version(connection)
    return len(larger)


async def copies_of_items(connection: AsyncConnection, items: Sequence[int]) -> dict[int, int]:
    """Return the number of copies of each of these review items, without those that have none."""
    if not items:
        return {}
    joined = review_members.join(near_copies, near_copies.c.number == review_members.c.number)
    query = select(review_members.c.item, func.sum(near_copies.c.copies).label("copies")).select_from(joined)
    rows = await connection.execute(query.where(review_members.c.item.in_(items)).group_by(review_members.c.item))
    return {row.item: int(row.copies) for row in rows}


async def copies_of_sample(connection: AsyncConnection, number: int) -> StoredCopies:
    """Return the number of copies of a sample, and the time of the last one."""
    query = select(near_copies.c.copies, near_copies.c.last_at_s).where(near_copies.c.number == number)
    row = (await connection.execute(query)).one_or_none()
    return StoredCopies(*row) if row is not None else NO_COPIES


async def remove_old_copies(store: Store, verdicts_days: float) -> int:
    """Delete the counts that no device has reported for this long (0: never); return their number."""
    if not verdicts_days:
        return 0
    return await in_chunks(store, partial(_before, time.time() - verdicts_days * _DAY_S))


def copies_of_device(device_id: str, rows: int) -> Delete:
    """Return the statement that deletes the next rows of a device."""
    return _delete(near_copies.c.device_id == device_id, rows)


def _before(end_s: float, rows: int) -> Delete:
    return _delete(near_copies.c.received_at_s < end_s, rows)


def _delete(condition: ColumnElement[bool], rows: int) -> Delete:
    numbers = select(near_copies.c.number).where(condition).limit(rows)
    return delete(near_copies).where(near_copies.c.number.in_(numbers))
