"""Histograms and budgets of the devices of a group over its last days, read in batches."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.schema import replay_budgets, replay_days, replay_progress
from cloud.thresholds.cells import BUDGETS, COLUMNS, SAMPLES, unpack_banks
from cloud.thresholds.week import MAX_SOURCES, SourceWeek, add_histograms

HISTOGRAMS_AT_ONCE = 500  # in memory: a few milliseconds of work


@dataclass(frozen=True, slots=True)
class Counts:
    """Histograms and budgets of some devices.

    `counted`: place of the counter of verdicts, None before its first step. `banks`: (devices, budgets + 1, columns).
    `losses`: as in `cloud.thresholds.week.GroupWeek`.
    """

    counted: tuple[float, int] | None
    sources: list[SourceWeek]
    banks: NDArray[np.int64]
    losses: Mapping[tuple[int, int], NDArray[np.bool_]]


async def devices_beyond_bound(connection: AsyncConnection, ids: Select[Any], first_day: int) -> set[str]:
    """Return the devices to leave out, so that the others have at most MAX_SOURCES sources together since a day.

    Those with the most sources are left out first: a device that makes up sources displaces no other one. A few devices
    always stay, because `cloud.store.replay.builder` bounds the sources of each one.
    """
    days = replay_days.c
    query = select(days.device_id, func.count(days.source_id.distinct()))
    query = query.where(days.device_id.in_(ids), days.day >= first_day).group_by(days.device_id)
    counted = sorted((int(count), device_id) for device_id, count in await connection.execute(query))
    totals = accumulate(count for count, _ in counted)
    return {device_id for (_, device_id), total in zip(counted, totals, strict=True) if total > MAX_SOURCES}


async def read_counts(
    connection: AsyncConnection, ids: Select[Any], places: Mapping[str, int], first_day: int, known: Counts | None
) -> Counts:
    """Return the counts of devices since a day; the `known` ones if no verdict was counted since.

    The caller bounds the devices by `devices_beyond_bound`: all rows of the others are read.
    """
    progress = (await connection.execute(select(replay_progress.c.judged_at_s, replay_progress.c.number))).first()
    counted = (progress.judged_at_s, progress.number) if progress is not None else None
    if known is not None and counted is not None and known.counted == counted:
        return known
    sources = await _read_histograms(connection, ids, places, first_day)
    return Counts(counted, sources, *await _read_budgets(connection, ids, places, first_day))


async def _read_histograms(
    connection: AsyncConnection, ids: Select[Any], places: Mapping[str, int], first_day: int
) -> list[SourceWeek]:
    query = select(replay_days.c.device_id, replay_days.c.source_id, replay_days.c.cells).where(
        replay_days.c.device_id.in_(ids), replay_days.c.day >= first_day
    )
    sources: dict[tuple[str, str], SourceWeek] = {}
    result = await connection.stream(query)
    async for rows in result.partitions(HISTOGRAMS_AT_ONCE):
        packed: dict[tuple[str, str], list[bytes]] = {}
        for device_id, source_id, cells in rows:
            packed.setdefault((device_id, source_id), []).append(cells)
        for device_id, source_id in packed.keys() - sources.keys():
            sources[device_id, source_id] = SourceWeek(places[device_id], source_id)
        add_histograms([sources[name] for name in packed], [b"".join(days) for days in packed.values()])
    return [source for _, source in sorted(sources.items())]


async def _read_budgets(
    connection: AsyncConnection, ids: Select[Any], places: Mapping[str, int], first_day: int
) -> tuple[NDArray[np.int64], dict[tuple[int, int], NDArray[np.bool_]]]:
    """Return the sum of the banks of each device, and by device and day which budgets would have held a sample back."""
    query = select(replay_budgets.c.device_id, replay_budgets.c.day, replay_budgets.c.cells).where(
        replay_budgets.c.device_id.in_(ids), replay_budgets.c.day >= first_day
    )
    rows = (await connection.execute(query)).all()
    banks = unpack_banks([row.cells for row in rows])
    days = [(places[row.device_id], row.day) for row in rows]
    sums = np.zeros((len(places), BUDGETS + 1, COLUMNS), np.int64)
    for (place, _), bank in zip(days, banks, strict=True):
        sums[place] += bank
    return sums, dict(zip(days, banks[..., SAMPLES] < banks[:, -1:, SAMPLES], strict=True))
