"""Removal of review items, in steps that block writers only briefly: of expired verdicts, and of a removed device."""

import time
from functools import partial

from sqlalchemy import Delete, delete, exists, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.engine import Store
from cloud.store.retention import Key, Step, delete_found
from cloud.store.schema import review_items, review_members, verdicts

_DAY_S = 86_400.0


async def remove_expired(store: Store, verdicts_days: float) -> int:
    """Delete the items without a verdict that is left; return their number. Raises StorageError.

    Only items judged before `verdicts_days` (0: never) can have lost one. Members, decisions and marks go with them.
    """
    if not verdicts_days:
        return 0
    before_s = time.time() - verdicts_days * _DAY_S
    return await delete_found(store, review_items.c.number, partial(_expired, before_s), (-1.0, 0))


def items_of_device(device_id: str, rows: int) -> Delete:
    """Return the statement that deletes `rows` items of a device, with members, decisions and marks."""
    old = select(review_items.c.number).where(review_items.c.device_id == device_id).limit(rows)
    return delete(review_items).where(review_items.c.number.in_(old))


async def _expired(before_s: float, connection: AsyncConnection, after: Key, rows: int) -> Step:
    """Find items without a verdict, in the order of their last judgement."""
    items = review_items.c
    joined = review_members.join(verdicts, verdicts.c.number == review_members.c.number)
    has_verdict = exists().select_from(joined).where(review_members.c.item == items.number)
    query = (
        select(items.last_judged_at_s, items.number, has_verdict.label("has_verdict"))
        .where(items.last_judged_at_s < before_s, tuple_(items.last_judged_at_s, items.number) > tuple_(*after))
        .order_by(items.last_judged_at_s, items.number)
        .limit(rows)
    )
    found = (await connection.execute(query)).all()
    keys = [row.number for row in found if not row.has_verdict]
    return Step(keys, (found[-1].last_judged_at_s, found[-1].number) if len(found) == rows else None)
