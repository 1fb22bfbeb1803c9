"""Count of the samples in a store."""

from collections.abc import Sequence

from sqlalchemy import select

from cloud.store import Store
from cloud.store.inbox_request import ids_in
from cloud.store.schema import inbox, samples


async def count_stored(store: Store, sample_ids: Sequence[bytes]) -> int:
    """Return the number of these samples that are stored durably, as rows or in the inbox."""
    async with store.reading() as connection:
        query = select(samples.c.sample_id).where(samples.c.sample_id.in_(sample_ids))
        found = set((await connection.execute(query)).scalars())
        for data in (await connection.execute(select(inbox.c.data))).scalars():
            found |= set(ids_in(data)) & set(sample_ids)
    return len(found)
