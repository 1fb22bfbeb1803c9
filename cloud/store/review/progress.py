"""Place of the builder of review items, and the version of the items."""

from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.schema import review_progress

_NAME = "items"
_ROW = review_progress.c.name == _NAME


async def review_version(connection: AsyncConnection) -> int:
    """Return a number that grows with each change of an item or of a decision."""
    found = await connection.execute(select(review_progress.c.version).where(_ROW))
    return int(found.scalar_one_or_none() or 0)


async def raise_version(connection: AsyncConnection) -> None:
    """Raise the version in the transaction of a change."""
    await _write(connection, version=review_progress.c.version + 1)


async def read_progress(connection: AsyncConnection) -> tuple[float, int, int]:
    """Return time and number of the last verdict that was read for good, and the number of the last item."""
    columns = (review_progress.c.judged_at_s, review_progress.c.number, review_progress.c.last_item)
    row = (await connection.execute(select(*columns).where(_ROW))).one_or_none()
    return (row.judged_at_s, row.number, row.last_item) if row is not None else (0.0, 0, 0)


async def write_progress(connection: AsyncConnection, judged_at_s: float, number: int, last_item: int) -> None:
    """Store the place in the transaction of the items before it."""
    await _write(connection, judged_at_s=judged_at_s, number=number, last_item=last_item)


async def _write(connection: AsyncConnection, **values: Any) -> None:
    if not (await connection.execute(update(review_progress).where(_ROW).values(values))).rowcount:
        first = {"name": _NAME, "judged_at_s": 0.0, "number": 0, "last_item": 0, "version": 1}
        await connection.execute(insert(review_progress).values(first))
        await connection.execute(update(review_progress).where(_ROW).values(values))
