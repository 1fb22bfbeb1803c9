"""Outcomes of changed settings: the review items that came in the day after each change."""

from sqlalchemy import case, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.engine import Store
from cloud.store.replay.builder import DAY_S
from cloud.store.review.severity import Severity
from cloud.store.schema import devices, group_changes, review_items
from cloud.thresholds.figures import Came

OLDEST_S = 14 * DAY_S  # of a change without an outcome
AT_ONCE = 50
LEAST_S = 3600.0  # between two changes; with less the first one has no figures


async def note_outcomes(store: Store, now_s: float) -> int:
    """Store the outcome of changes that are a day old; return their number. Raises StorageError."""
    due = select(group_changes.c.number, group_changes.c.group_name, group_changes.c.at_s).where(
        group_changes.c.outcome.is_(None), group_changes.c.at_s.between(now_s - OLDEST_S, now_s - DAY_S)
    )
    async with store.reading() as connection:
        found = (await connection.execute(due.order_by(group_changes.c.number).limit(AT_ONCE))).all()
        outcomes = [(number, await _came(connection, number, group, at_s)) for number, group, at_s in found]
    if outcomes:
        async with store.writing() as connection:
            for number, came in outcomes:
                changed = update(group_changes).where(group_changes.c.number == number)
                await connection.execute(changed.values(outcome=came.model_dump()))
    return len(outcomes)


async def _came(connection: AsyncConnection, number: int, group: str, at_s: float) -> Came:
    """Return the items that began within a day of a change, and before the next one of its group."""
    later = select(func.min(group_changes.c.at_s)).where(
        group_changes.c.group_name == group, group_changes.c.number > number
    )
    next_s = (await connection.execute(later)).scalar_one()
    until_s = min(at_s + DAY_S, next_s if next_s is not None else at_s + DAY_S)
    hours = max(until_s - at_s, 0.0) / 3600.0
    if until_s - at_s < LEAST_S:
        return Came(hours=hours, items_per_day=None, alarm_items_per_day=None)
    ids = select(devices.c.device_id).where(devices.c.group_name == group)
    alarms = func.sum(case((review_items.c.severity == Severity.ALARM.value, 1), else_=0))
    query = select(func.count(), func.coalesce(alarms, 0)).where(
        review_items.c.first_at_s >= at_s, review_items.c.first_at_s < until_s, review_items.c.device_id.in_(ids)
    )
    items, alarm_items = (await connection.execute(query)).one()
    days = (until_s - at_s) / DAY_S
    return Came(hours=hours, items_per_day=items / days, alarm_items_per_day=int(alarm_items) / days)
