"""What the device may send: a budget in samples and bytes a second, which follows what the link carries."""

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
class Backlog:
    """What waits for the link: its `bytes`, their share of what the spool holds, and what the link carries.

    `throughput_bytes_per_s` and `round_trip_s` are 0 while unknown.
    """

    bytes: int
    spool_share: float
    connected: bool
    throughput_bytes_per_s: float
    round_trip_s: float

    @property
    def wait_s(self) -> float:
        """How long a sample that is added now would wait at the end of the queue; 0 while nobody can tell."""
        if self.throughput_bytes_per_s <= 0:
            return 0.0
        return self.bytes / self.throughput_bytes_per_s + self.round_trip_s


class UploadBudget:
    """The device's budget in samples and in bytes, shared by all its sources. Safe to use from any thread.

    While what waits would take a connected link longer than `max_queue_s`, the budget in bytes falls to what that link
    carries: better the most suspicious in time than all of them too late. Without a connection it stays as configured,
    since the spool is there for that.
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
        """Whether what samples weigh is limited."""
        return self._bytes.is_limited

    def follow(self, backlog: Backlog) -> None:
        """Take notice of the queue. `pressure` becomes how full it is, 1 being the most, in time or in bytes."""
        wait_s, limit_s = backlog.wait_s if backlog.connected else 0.0, self._max_queue_s
        self.pressure = max(backlog.spool_share, wait_s / limit_s if limit_s > 0 else 0.0)
        slow = limit_s > 0 and wait_s > (limit_s / 2 if self._follows_link else limit_s)
        carried = LINK_SHARE * backlog.throughput_bytes_per_s
        wanted = min(carried, self._configured or carried) if slow else self._configured
        self._follows_link = slow
        if wanted != self.bytes_per_s:
            with self._lock:
                self._bytes.change_rate(wanted)
            self.bytes_per_s = wanted

    def affords(self, cost_bytes: float, share: float) -> bool:
        """Whether less than `share` of queue and bucket is used up, and so many bytes fit into the bucket."""
        with self._lock:
            level = self._bytes.level()
        fits = cost_bytes <= level and level >= (1.0 - share) * self._bytes.capacity
        return self.pressure <= share and (fits or not self._bytes.is_limited)

    def available_bytes(self) -> float:
        """Return the bytes in the bucket, infinity without a limit; below 0 while a debt is paid back."""
        with self._lock:
            return self._bytes.level()

    def grant(self, sizes_bytes: NDArray[np.float64]) -> int:
        """How many of the first samples fit, of these sizes (n,) in order of their worth; they are paid for.

        A sample larger than the whole bucket passes when the bucket is full, and is paid back before the next.
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
        """Charge what samples turned out larger than estimated, or give back what they turned out smaller."""
        with self._lock:
            self._bytes.spend(extra_bytes)
