"""Items that a person has marked as reviewed."""

import time
from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.engine import Store
from cloud.store.review.progress import raise_version
from cloud.store.schema import review_items, review_marks
from cloud.store.sites import by_sites
from cloud.store.upsert import upsert


async def mark(
    store: Store, actor: str, items: Sequence[int], *, is_reviewed: bool, sites: Sequence[str] = ()
) -> list[int]:
    """Mark items as reviewed by a person, or take the mark away; return those that exist. Raises StorageError.

    With `sites`, items of other ones do not exist.
    """
    async with store.writing() as connection:
        query = select(review_items.c.number).where(review_items.c.number.in_(items))
        query = query.where(*by_sites(review_items.c.device_id, sites))
        found = sorted((await connection.execute(query)).scalars())
        if found:
            await mark_in(connection, actor, found, is_reviewed=is_reviewed)
            await raise_version(connection)
        return found


async def mark_in(connection: AsyncConnection, actor: str, items: Sequence[int], *, is_reviewed: bool) -> None:
    """Mark items in the transaction of another change."""
    if is_reviewed:
        now_s = time.time()
        rows = [{"actor": actor, "item": item, "at_s": now_s} for item in items]
        await upsert(connection, review_marks, rows)
    else:
        await connection.execute(
            delete(review_marks).where(review_marks.c.actor == actor, review_marks.c.item.in_(items))
        )
