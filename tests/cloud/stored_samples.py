"""Count of the samples in a store."""

from collections.abc import Sequence

from sqlalchemy import func, select

from cloud.store import Store
from cloud.store.schema import samples


async def count_stored(store: Store, sample_ids: Sequence[bytes]) -> int:
    """Return the number of these samples that are stored durably."""
    query = select(func.count()).select_from(samples).where(samples.c.sample_id.in_(sample_ids))
    async with store.reading() as connection:
        return int((await connection.execute(query)).scalar_one())
