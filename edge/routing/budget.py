"""Upload budget in samples and bytes per second, adapted to the measured throughput of the link."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.settings import RouterSettings
from edge.token_bucket import TokenBucket

LINK_SHARE = 0.8  # of the measured throughput that new samples may use while the queue is too long


@dataclass(frozen=True, slots=True)
class UplinkLoad:
    """Load of the queue and of the link: `bytes` that wait, and `spool_share`, their share of the spool's bound.

    `throughput_bytes_per_s` and `round_trip_s` are 0 while unknown.
    """

    bytes: int
    spool_share: float
    connected: bool
    throughput_bytes_per_s: float
    round_trip_s: float

    @property
    def wait_s(self) -> float:
        """Seconds until a sample added now would be sent; 0 while unknown."""
        if self.throughput_bytes_per_s <= 0:
            return 0.0
        return self.bytes / self.throughput_bytes_per_s + self.round_trip_s


class UploadBudget:
    """The device's budget in samples and in bytes, shared by all its sources. Safe to use from any thread.

    While the queue would take a connected link longer than `max_queue_s`, the budget in bytes falls to the throughput
    of that link, so that the most suspicious samples arrive in time. Without a connection the budget stays as
    configured, and the spool fills.
    """

    def __init__(self, settings: RouterSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._max_queue_s, self._configured = settings.max_queue_s, settings.max_bytes_per_s
        self._samples = TokenBucket(settings.max_samples_per_s, settings.burst_s, clock)
        self._bytes = TokenBucket(settings.max_bytes_per_s, settings.burst_s, clock)
        self._follows_link = False
        self.bytes_per_s = settings.max_bytes_per_s
        self.pressure = 0.0

    @property
    def counts_bytes(self) -> bool:
        """Whether the budget limits bytes."""
        return self._bytes.is_limited

    def configure(self, settings: RouterSettings) -> None:
        """Adopt other rates; that in bytes counts from the next call of `follow` on."""
        with self._lock:
            self._samples.change_rate(settings.max_samples_per_s)
        self._configured = settings.max_bytes_per_s

    def follow(self, load: UplinkLoad) -> None:
        """Adapt to the queue, and set `pressure` to its fill in time or in bytes, 1 when full."""
        wait_s, limit_s = load.wait_s if load.connected else 0.0, self._max_queue_s
        self.pressure = max(load.spool_share, wait_s / limit_s if limit_s > 0 else 0.0)
        slow = limit_s > 0 and wait_s > (limit_s / 2 if self._follows_link else limit_s)
        carried = LINK_SHARE * load.throughput_bytes_per_s
        wanted = min(carried, self._configured or carried) if slow else self._configured
        self._follows_link = slow
        if wanted != self.bytes_per_s:
            with self._lock:
                self._bytes.change_rate(wanted)
            self.bytes_per_s = wanted

    def affords(self, cost_bytes: float, share: float) -> bool:
        """Return whether less than `share` of queue and bucket is used up and `cost_bytes` fit into the bucket."""
        with self._lock:
            level, capacity = self._bytes.level(), self._bytes.capacity
        fits = cost_bytes <= level and level >= (1.0 - share) * capacity  # always without a limit
        return self.pressure <= share and fits

    def available_bytes(self) -> float:
        """Return the bytes in the bucket, infinity without a limit; below 0 while a debt is paid back."""
        with self._lock:
            return self._bytes.level()

    def grant(self, sizes_bytes: NDArray[np.float64]) -> int:
        """Pay for as many of the first samples as fit, and return their number.

        `sizes_bytes` (n,) are in the order in which samples are paid for.

        A sample larger than the whole bucket passes when the bucket is full; the debt is paid back before the next one.
        """
        with self._lock:
            by_count = min(self._samples.level(), float(len(sizes_bytes)))
            by_bytes = len(sizes_bytes)
            if self._bytes.is_limited:
                sizes = np.minimum(sizes_bytes, self._bytes.capacity)
                by_bytes = int(np.searchsorted(np.cumsum(sizes), self._bytes.level(), side="right"))
            granted = min(int(max(by_count, 0.0)), by_bytes)
            self._samples.spend(granted)
            self._bytes.spend(float(sizes_bytes[:granted].sum()))
        return granted

    def correct(self, extra_bytes: float) -> None:
        """Charge the difference between real and estimated sizes; a negative difference is given back."""
        with self._lock:
            self._bytes.spend(extra_bytes)
