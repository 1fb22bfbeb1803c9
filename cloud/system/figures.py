"""Figures of the service: throughput, latency, queues, storage and the machine."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.settings import CloudSettings
from cloud.store import Store
from cloud.store.fleet_queries import fleet_summary
from cloud.store.system_queries import (
    MAX_COUNTED,
    VerdictTimes,
    longest_queues,
    newest_times,
    oldest_verdict,
    store_bytes,
    verdicts_since,
    waiting_messages,
)
from cloud.system.machine import Machine, MachineFigures

WINDOWS_S = (60.0, 900.0, 3600.0)


class FrozenModel(BaseModel):
    """Base of the figures."""

    model_config = ConfigDict(frozen=True)


class WindowFigures(FrozenModel):
    """Verdicts of the last `seconds`; with `is_more` there were more than were counted."""

    seconds: float
    verdicts: int
    is_more: bool


class LatencyFigures(FrozenModel):
    """Latency of the newest `verdicts` in seconds; None without a verdict.

    From the arrival of a sample at the service, and from its capture by the clock of the device, which includes the
    time that it waited there.
    """

    verdicts: int
    from_arrival_median_s: float | None
    from_arrival_p95_s: float | None
    from_capture_median_s: float | None
    from_capture_p95_s: float | None


class QueueFigures(FrozenModel):
    """Samples and messages that wait; `devices` are those with the most waiting samples."""

    waiting_samples: int
    oldest_waiting_s: float | None
    spooled_samples: int
    waiting_messages: int
    devices: tuple[tuple[str, int], ...]


class StorageFigures(FrozenModel):
    """Size of the store, its oldest verdict, and the retention in days (0: unlimited)."""

    kind: str
    store_bytes: int
    verdicts: int
    oldest_verdict_at_s: float | None
    retention_days: dict[str, float]


class SystemFigures(FrozenModel):
    """All figures at one time."""

    now_s: float
    throughput: tuple[WindowFigures, ...]
    latency: LatencyFigures
    queues: QueueFigures
    storage: StorageFigures
    machine: MachineFigures


@dataclass(frozen=True)
class System:
    """Reader of the figures of a service, and its settings."""

    store: Store
    settings: CloudSettings
    machine: Machine

    async def figures(self) -> SystemFigures:
        """Return the figures; raises StorageError."""
        machine, now_s = await self.machine.figures(), time.time()
        async with self.store.reading() as connection:
            summary = await fleet_summary(connection, alive_since_s=now_s)
            oldest_s = summary.oldest_pending_at_s
            return SystemFigures(
                now_s=now_s,
                throughput=tuple([await _window(connection, now_s, seconds) for seconds in WINDOWS_S]),
                latency=latency_of(await newest_times(connection)),
                queues=QueueFigures(
                    waiting_samples=summary.pending,
                    oldest_waiting_s=max(now_s - oldest_s, 0.0) if oldest_s is not None and summary.pending else None,
                    spooled_samples=summary.spool_samples,
                    waiting_messages=await waiting_messages(connection),
                    devices=tuple(await longest_queues(connection)),
                ),
                storage=StorageFigures(
                    kind="PostgreSQL" if connection.dialect.name == "postgresql" else "SQLite",
                    store_bytes=await store_bytes(connection),
                    verdicts=sum(summary.decisions.values()),
                    oldest_verdict_at_s=await oldest_verdict(connection),
                    retention_days=self.settings.retention.model_dump(),
                ),
                machine=machine,
            )


async def _window(connection: AsyncConnection, now_s: float, seconds: float) -> WindowFigures:
    count = await verdicts_since(connection, now_s - seconds)
    return WindowFigures(seconds=seconds, verdicts=count, is_more=count >= MAX_COUNTED)


def latency_of(times: Sequence[VerdictTimes]) -> LatencyFigures:
    """Return the latency of verdicts; a clock that is wrong may make one negative."""
    arrival = sorted(each.judged_at_s - each.received_at_s for each in times)
    capture = sorted(each.judged_at_s - each.captured_at_s for each in times)
    return LatencyFigures(
        verdicts=len(times),
        from_arrival_median_s=quantile(arrival, 0.5),
        from_arrival_p95_s=quantile(arrival, 0.95),
        from_capture_median_s=quantile(capture, 0.5),
        from_capture_p95_s=quantile(capture, 0.95),
    )


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least this share of the ordered values does not exceed; None without one."""
    if not ordered:
        return None
    place = min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))
    return ordered[place]
