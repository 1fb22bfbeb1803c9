"""The last days of a group for a replay: a bounded number of rows, however many samples the store has.

Histograms and budgets are one row for each source or device and day. Devices beyond MAX_DEVICES, or with sources beyond
MAX_SOURCES, are left out as a whole. Heartbeats are read at a few times by an index. Labelled samples and review items
are the newest ones up to a bound.
"""

import uuid
from collections.abc import Collection
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.group_settings import settings_by_group
from cloud.store.labels import IS_CURRENT, Label
from cloud.store.replay.beats import DAYS, add_up, read_newest_beats, read_past_beats
from cloud.store.replay.builder import DAY_S
from cloud.store.replay.counts import devices_beyond_bound, read_counts
from cloud.store.replay.kept import KeptWeeks
from cloud.store.review.grouping import moment_of
from cloud.store.review.severity import ALARM_P_VALUE, Severity
from cloud.store.schema import (
    devices,
    heartbeats,
    labels,
    review_items,
    samples,
    verdicts,
)
from cloud.store.sites import of_sites
from cloud.thresholds.week import MAX_DEVICES, DeviceWeek, GroupWeek, ItemOfWeek, LabelledSample
from shared.group_settings import GroupSettings

MAX_LABELLED, MAX_ITEMS = 2000, 5000
_REAL = (Label.REAL, Label.MISSED)
_LABELS = (*_REAL, Label.FALSE_ALARM)


async def read_week(
    connection: AsyncConnection,
    group: str,
    now_s: float,
    sites: Collection[str] = (),
    kept_weeks: KeptWeeks | None = None,
) -> GroupWeek | None:
    """Return the last days of the devices of a group on these sites; None without a device.

    `kept_weeks`: parts of earlier readings of the same store, used again where they are still valid.
    """
    listed = (devices.c.group_name == group, devices.c.removed_at_s.is_(None), devices.c.revoked_at_s.is_(None))
    wanted = (*listed, *of_sites(sites))
    columns = (devices.c.device_id, devices.c.enrolled_at_s, heartbeats.c.settings, heartbeats.c.running)
    query = select(*columns).select_from(devices.outerjoin(heartbeats)).where(*wanted).order_by(devices.c.device_id)
    rows = (await connection.execute(query.limit(MAX_DEVICES))).all()
    if not rows:
        return None
    ids = select(devices.c.device_id).where(*wanted).order_by(devices.c.device_id)
    since_s = (now_s // DAY_S - DAYS + 1) * DAY_S
    first_day = int(since_s // DAY_S)
    if beyond := await devices_beyond_bound(connection, ids.limit(MAX_DEVICES), first_day):
        rows = [row for row in rows if row.device_id not in beyond]
        ids = ids.where(devices.c.device_id.not_in(beyond))
    ids = ids.limit(len(rows))
    found = [
        DeviceWeek(device_id, in_force=settings, running=len(running or ())) for device_id, _, settings, running in rows
    ]
    counted = (await connection.execute(select(func.count()).select_from(devices).where(*wanted))).scalar_one()
    places = {device.device_id: place for place, device in enumerate(found)}
    weeks = kept_weeks if kept_weeks is not None else KeptWeeks()
    kept = weeks.of([(row.device_id, row.enrolled_at_s) for row in rows], since_s)
    counts = kept.counts = await read_counts(connection, ids, places, first_day, kept.counts)
    days_s = (since_s, now_s)
    beats, kept.past_beats = await read_past_beats(connection, ids, places, days_s, kept.past_beats)
    weeks.shrink()
    add_up(found, beats.with_others(await read_newest_beats(connection, ids, places, since_s)))
    for device, bank in zip(found, counts.banks, strict=True):
        device.bank = bank
    week = GroupWeek(
        since_s=since_s,
        until_s=now_s,
        wanted=(await settings_by_group(connection)).get(group, GroupSettings()),
        devices=found,
        sources=counts.sources,
        labelled=[],
        items=[],
        items_total=0,
        losses=counts.losses,
        left_out=int(counted) - len(found),
    )
    await _read_labelled(connection, week, ids, places)
    await _read_items(connection, week, ids, places)
    return week


async def _read_labelled(
    connection: AsyncConnection, week: GroupWeek, ids: Select[Any], places: dict[str, int]
) -> None:
    """Read the newest labelled samples of the days."""
    first = select(verdicts.c.number).where(verdicts.c.judged_at_s >= week.since_s)
    earliest = (
        await connection.execute(first.order_by(verdicts.c.judged_at_s, verdicts.c.number).limit(200))
    ).scalars()
    numbers = list(earliest)
    if not numbers:
        return
    columns = (
        samples.c.sample_id,
        samples.c.device_id,
        samples.c.source_id,
        samples.c.edge_p_value,
        samples.c.captured_at_s,
        samples.c.received_at_s,
    )
    query = (
        select(labels.c.label, *columns)
        .join(samples, samples.c.number == labels.c.sample_number)
        .where(
            labels.c.sample_number >= min(numbers),
            samples.c.number >= min(numbers),
            labels.c.label.in_([label.value for label in _LABELS]),
            IS_CURRENT,
            samples.c.device_id.in_(ids),
        )
        .order_by(labels.c.number.desc())
        .limit(MAX_LABELLED)
    )
    for label, sample_id, device_id, source_id, p_value, captured_at_s, received_at_s in await connection.execute(
        query
    ):
        at_s = moment_of(captured_at_s, received_at_s)
        if at_s >= week.since_s:
            place, is_real = places[device_id], label in _REAL
            name = str(uuid.UUID(bytes=sample_id))
            week.labelled.append(LabelledSample(name, place, source_id, p_value, is_real, int(at_s // DAY_S)))


async def _read_items(connection: AsyncConnection, week: GroupWeek, ids: Select[Any], places: dict[str, int]) -> None:
    """Read the newest review items of the days by their oddest samples."""
    of_days = (review_items.c.first_at_s >= week.since_s, review_items.c.device_id.in_(ids))
    counted = select(func.count()).select_from(review_items).where(*of_days)
    week.items_total = int((await connection.execute(counted)).scalar_one())
    newest = (
        select(review_items.c.number).where(*of_days).order_by(review_items.c.first_at_s.desc()).limit(MAX_ITEMS)
    ).subquery("newest")
    columns = (
        review_items.c.device_id,
        review_items.c.source_id,
        review_items.c.severity,
        review_items.c.p_value,
        samples.c.edge_p_value,
    )
    query = (
        select(*columns)
        .select_from(newest)
        .join(review_items, review_items.c.number == newest.c.number)
        .join(samples, samples.c.number == review_items.c.cover)
    )
    for device_id, source_id, severity, p_value, edge_p_value in await connection.execute(query):
        can_alarm = severity != Severity.UNDECIDED.value
        is_alarm = severity == Severity.ALARM.value and p_value <= ALARM_P_VALUE
        week.items.append(ItemOfWeek(places[device_id], source_id, edge_p_value, is_alarm, can_alarm))
