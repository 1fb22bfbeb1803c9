"""The last days of a group for a replay: a bounded number of rows, however many samples the store has.

Histograms and budgets are one row for each source or device and day. Heartbeats are read at a few times by an index.
Labelled samples and review items are the newest ones up to a bound.
"""

import uuid
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.group_settings import settings_by_group
from cloud.store.heartbeat_history import SLOT_S
from cloud.store.labels import IS_CURRENT, Label
from cloud.store.replay.builder import DAY_S
from cloud.store.review.grouping import moment_of
from cloud.store.review.severity import ALARM_P_VALUE, Severity
from cloud.store.schema import (
    devices,
    heartbeat_history,
    heartbeats,
    labels,
    replay_budgets,
    replay_days,
    review_items,
    samples,
    verdicts,
)
from cloud.store.sites import of_sites
from cloud.thresholds.cells import SAMPLES, unpack_banks
from cloud.thresholds.week import DeviceWeek, GroupWeek, ItemOfWeek, LabelledSample, SourceWeek, add_histograms
from shared.group_settings import GroupSettings

DAYS = 7  # calendar days in UTC, with the present one
MAX_DEVICES, MAX_SOURCES = 1000, 4000
HISTOGRAMS_AT_ONCE = 500  # in memory: a few milliseconds of work
MAX_LABELLED, MAX_ITEMS = 2000, 5000
MAX_POINTS = 14_000  # heartbeats of all devices
_REAL = (Label.REAL, Label.MISSED)
_LABELS = (*_REAL, Label.FALSE_ALARM)


async def read_week(
    connection: AsyncConnection, group: str, now_s: float, sites: Collection[str] = ()
) -> GroupWeek | None:
    """Return the last days of the devices of a group on these sites; None without a device."""
    listed = (devices.c.group_name == group, devices.c.removed_at_s.is_(None), devices.c.revoked_at_s.is_(None))
    wanted = (*listed, *of_sites(sites))
    columns = (devices.c.device_id, heartbeats.c.settings, heartbeats.c.running)
    query = select(*columns).select_from(devices.outerjoin(heartbeats)).where(*wanted).order_by(devices.c.device_id)
    rows = (await connection.execute(query.limit(MAX_DEVICES))).all()
    if not rows:
        return None
    found = [
        DeviceWeek(device_id, in_force=settings, running=len(running or ())) for device_id, settings, running in rows
    ]
    counted = (await connection.execute(select(func.count()).select_from(devices).where(*wanted))).scalar_one()
    week = GroupWeek(
        since_s=(now_s // DAY_S - DAYS + 1) * DAY_S,
        until_s=now_s,
        wanted=(await settings_by_group(connection)).get(group, GroupSettings()),
        devices=found,
        sources=[],
        labelled=[],
        items=[],
        items_total=0,
        losses={},
        left_out=int(counted) - len(found),
    )
    ids = select(devices.c.device_id).where(*wanted).order_by(devices.c.device_id).limit(MAX_DEVICES)
    places = {device.device_id: place for place, device in enumerate(found)}
    await _read_histograms(connection, week, ids, places)
    await _read_budgets(connection, week, ids, places)
    await _read_counters(connection, week, ids, places)
    await _read_labelled(connection, week, ids, places)
    await _read_items(connection, week, ids, places)
    return week


async def _read_histograms(
    connection: AsyncConnection, week: GroupWeek, ids: Select[Any], places: dict[str, int]
) -> None:
    query = select(replay_days.c.device_id, replay_days.c.source_id, replay_days.c.cells).where(
        replay_days.c.device_id.in_(ids), replay_days.c.day >= int(week.since_s // DAY_S)
    )
    sources: dict[tuple[str, str], SourceWeek] = {}
    result = await connection.stream(query.limit(DAYS * MAX_SOURCES))
    async for rows in result.partitions(HISTOGRAMS_AT_ONCE):
        packed: dict[tuple[str, str], list[bytes]] = {}
        for device_id, source_id, cells in rows:
            packed.setdefault((device_id, source_id), []).append(cells)
        for device_id, source_id in packed.keys() - sources.keys():
            sources[device_id, source_id] = SourceWeek(places[device_id], source_id)
        add_histograms([sources[name] for name in packed], [b"".join(days) for days in packed.values()])
    week.sources = [source for _, source in sorted(sources.items())]


async def _read_budgets(connection: AsyncConnection, week: GroupWeek, ids: Select[Any], places: dict[str, int]) -> None:
    """Add up the banks of each device, and note which budgets would have held a sample back on a day."""
    query = select(replay_budgets.c.device_id, replay_budgets.c.day, replay_budgets.c.cells).where(
        replay_budgets.c.device_id.in_(ids), replay_budgets.c.day >= int(week.since_s // DAY_S)
    )
    rows = (await connection.execute(query)).all()
    banks = unpack_banks([row.cells for row in rows])
    days = [(places[row.device_id], row.day) for row in rows]
    for (place, _), bank in zip(days, banks, strict=True):
        week.devices[place].bank += bank
    week.losses = dict(zip(days, banks[..., SAMPLES] < banks[:, -1:, SAMPLES], strict=True))


async def _read_counters(
    connection: AsyncConnection, week: GroupWeek, ids: Select[Any], places: dict[str, int]
) -> None:
    """Add up the counters of each device between heartbeats of the days; a counter that falls begins again at 0."""
    first, last = int(week.since_s // SLOT_S), int(week.until_s // SLOT_S)
    steps = max(DAYS, min(24 * DAYS, MAX_POINTS // len(places)))
    query = _points(ids, first, last, max(1, (last - first) // steps))
    points = list((await connection.execute(query)).all())
    newest = select(
        heartbeats.c.device_id,
        heartbeats.c.received_at_s,
        heartbeats.c.samples_screened,
        heartbeats.c.samples_forwarded,
    )
    is_recent = heartbeats.c.received_at_s >= week.since_s
    points += (await connection.execute(newest.where(heartbeats.c.device_id.in_(ids), is_recent))).all()
    if points:
        device_ids, *columns = zip(*points, strict=True)
        _add_up(week, np.array([places[device_id] for device_id in device_ids]), *map(np.array, columns))


def _points(ids: Select[Any], first: int, last: int, step: int) -> Select[Any]:
    """Return the query of the first heartbeat of each device in every `step` slots, by one look into the index each."""
    times = select(literal(first).label("slot")).cte("times", recursive=True)
    times = times.union_all(select(times.c.slot + step).where(times.c.slot + step <= last))
    chosen = ids.subquery("chosen")
    kept, looked = heartbeat_history, heartbeat_history.alias("looked")
    earliest = (
        select(func.min(looked.c.slot))
        .where(
            looked.c.device_id == chosen.c.device_id,
            looked.c.slot >= times.c.slot,
            looked.c.slot < times.c.slot + step,
        )
        .correlate(chosen, times)
        .scalar_subquery()
    )
    joined = chosen.join(times, literal(True)).join(
        kept, (kept.c.device_id == chosen.c.device_id) & (kept.c.slot == earliest)
    )
    return select(
        kept.c.device_id, kept.c.received_at_s, kept.c.samples_screened, kept.c.samples_forwarded
    ).select_from(joined)


def _add_up(
    week: GroupWeek,
    devices: NDArray[np.intp],
    at_s: NDArray[np.float64],
    screened: NDArray[np.int64],
    forwarded: NDArray[np.int64],
) -> None:
    """Add what the counters gained between heartbeats to the devices; each array is (heartbeats,)."""
    order = np.lexsort((forwarded, screened, at_s, devices))
    devices = devices[order]
    is_pair = devices[1:] == devices[:-1]
    places = devices[1:][is_pair]

    def between(counter: NDArray[np.int64]) -> NDArray[np.int64]:
        old, new = counter[order][:-1][is_pair], counter[order][1:][is_pair]
        return np.where(new >= old, new - old, new)

    def total(values: NDArray[Any]) -> list[float]:
        found: list[float] = np.bincount(places, values, len(week.devices)).tolist()
        return found

    gained, elapsed_s = between(screened), np.diff(at_s[order])[is_pair]
    totals = (total(gained), total(between(forwarded)), total(elapsed_s), total(elapsed_s * (gained > 0)))
    for device, sums in zip(week.devices, zip(*totals, strict=True), strict=True):
        device.screened, device.forwarded = int(sums[0]), int(sums[1])
        device.observed_s, device.active_s = sums[2], sums[3]


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
