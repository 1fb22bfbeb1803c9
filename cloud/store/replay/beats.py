"""Heartbeats of the devices of a group at a few times of its last days, and the gains of their counters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.heartbeat_history import SLOT_S
from cloud.store.replay.builder import DAY_S
from cloud.store.schema import heartbeat_history, heartbeats
from cloud.thresholds.week import DeviceWeek

DAYS = 7  # calendar days in UTC, with the present one
MAX_POINTS = 14_000  # heartbeats of all devices


@dataclass(frozen=True, slots=True)
class Beats:
    """Counters of some heartbeats, each (heartbeats,); `devices` are places in the devices of the group."""

    devices: NDArray[np.intp]
    at_s: NDArray[np.float64]
    screened: NDArray[np.int64]
    forwarded: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[Sequence[Any]], places: Mapping[str, int]) -> "Beats":
        """Return the heartbeats of rows of device, time, screened and forwarded samples."""
        devices = np.array([places[row[0]] for row in rows], np.intp)
        at_s, screened, forwarded = (np.array([row[column] for row in rows]) for column in (1, 2, 3))
        return cls(devices, at_s.astype(np.float64), screened.astype(np.int64), forwarded.astype(np.int64))

    def with_others(self, other: "Beats") -> "Beats":
        """Return the heartbeats of both."""
        return Beats(
            np.concatenate([self.devices, other.devices]),
            np.concatenate([self.at_s, other.at_s]),
            np.concatenate([self.screened, other.screened]),
            np.concatenate([self.forwarded, other.forwarded]),
        )


@dataclass(frozen=True, slots=True)
class PastBeats:
    """Heartbeats in the slots before `until`, which do not change any more."""

    until: int
    beats: Beats


async def read_past_beats(
    connection: AsyncConnection,
    ids: Select[Any],
    places: Mapping[str, int],
    days_s: tuple[float, float],
    known: PastBeats | None,
) -> tuple[Beats, PastBeats]:
    """Return the first heartbeat of each device in every step of the days, and those of the steps that are over.

    `days_s`: begin and end of the days. The steps follow from the begin, so the past of an earlier call is `known`,
    and only later steps are read.
    """
    first, last = (int(at_s // SLOT_S) for at_s in days_s)
    steps = max(DAYS, min(24 * DAYS, MAX_POINTS // len(places)))
    step = max(1, int(DAYS * DAY_S / SLOT_S) // steps)
    past = known or PastBeats(first, Beats.of([], places))
    over = max(past.until, first + max(0, last - 1 - first) // step * step)  # a heartbeat of this minute may be late
    beats = past.beats
    if over > past.until:
        rows = (await connection.execute(_points(ids, past.until, over - 1, step))).all()
        beats = beats.with_others(Beats.of(rows, places))
    rows = (await connection.execute(_points(ids, over, last, step))).all()
    return beats.with_others(Beats.of(rows, places)), PastBeats(over, beats)


async def read_newest_beats(
    connection: AsyncConnection, ids: Select[Any], places: Mapping[str, int], since_s: float
) -> Beats:
    """Return the newest heartbeat of each device, if it is as new as `since_s`."""
    columns = (heartbeats.c.device_id, heartbeats.c.received_at_s)
    counters = (heartbeats.c.samples_screened, heartbeats.c.samples_forwarded)
    wanted = (heartbeats.c.device_id.in_(ids), heartbeats.c.received_at_s >= since_s)
    return Beats.of((await connection.execute(select(*columns, *counters).where(*wanted))).all(), places)


def add_up(devices: Sequence[DeviceWeek], beats: Beats) -> None:
    """Set the gains of the counters between the heartbeats; a counter that falls begins again at 0."""
    order = np.lexsort((beats.forwarded, beats.screened, beats.at_s, beats.devices))
    is_pair = np.diff(beats.devices[order]) == 0
    places = beats.devices[order][1:][is_pair]

    def between(counter: NDArray[np.int64]) -> NDArray[np.int64]:
        old, new = counter[order][:-1][is_pair], counter[order][1:][is_pair]
        return np.where(new >= old, new - old, new)

    def total(values: NDArray[Any]) -> list[float]:
        found: list[float] = np.bincount(places, values, len(devices)).tolist()
        return found

    gained, elapsed_s = between(beats.screened), np.diff(beats.at_s[order])[is_pair]
    totals = (total(gained), total(between(beats.forwarded)), total(elapsed_s), total(elapsed_s * (gained > 0)))
    for device, sums in zip(devices, zip(*totals, strict=True), strict=True):
        device.screened, device.forwarded = int(sums[0]), int(sums[1])
        device.observed_s, device.active_s = sums[2], sums[3]


def _points(ids: Select[Any], first: int, last: int, step: int) -> Select[Any]:
    """Return the query of the first heartbeat of each device in every `step` slots, by one look into the index each."""
    times = select(literal(first).label("slot")).cte("times", recursive=True)
    times = times.union_all(select(times.c.slot + step).where(times.c.slot + step <= last))
    chosen = ids.subquery("chosen")
    history, looked = heartbeat_history, heartbeat_history.alias("looked")
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
        history, (history.c.device_id == chosen.c.device_id) & (history.c.slot == earliest)
    )
    return select(
        history.c.device_id, history.c.received_at_s, history.c.samples_screened, history.c.samples_forwarded
    ).select_from(joined)
