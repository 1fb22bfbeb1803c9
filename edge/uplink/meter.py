"""What the link carries, as the uplink finds out: throughput, round trip, and how much fits into one request."""

import time
from collections.abc import Callable

from edge.settings import UplinkSettings

HALF_LIFE_S = 30.0  # of busy time, after which a measurement counts half
ROUND_TRIP_WEIGHT = 0.2  # of the newest
LEAST_REQUEST_BYTES = 16 * 2**10
MOST_PATIENCE = 8.0  # so much longer a silent connection may be kept for a slow one
MAX_DEADLINE_S = 600.0


class LinkMeter:
    """Written on the uplink's loop only, read anywhere.

    `throughput_bytes_per_s`: 0 while unknown. Only time in which there was more to send than went out counts, since a
    link that has little to carry is not slow. `round_trip_s`: of a small request; 0 while unknown.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._under_way, self._busy_since_s = 0, 0.0
        self._bytes = self._seconds = 0.0
        self.throughput_bytes_per_s = 0.0
        self.round_trip_s = 0.0

    def began(self) -> None:
        """A request with samples goes out, and more wait behind it."""
        if not self._under_way:
            self._busy_since_s = self._clock()
        self._under_way += 1

    def ended(self, delivered_bytes: int) -> None:
        """Such a request was answered, or met its deadline with nothing delivered."""
        now_s = self._clock()
        elapsed_s, self._busy_since_s = max(0.0, now_s - self._busy_since_s), now_s
        self._under_way -= 1
        share = 0.5 ** (elapsed_s / HALF_LIFE_S)
        self._bytes = self._bytes * share + delivered_bytes
        self._seconds = self._seconds * share + elapsed_s
        if self._seconds > 0:
            self.throughput_bytes_per_s = max(1.0, self._bytes / self._seconds)  # 0 means unknown

    def abandoned(self) -> None:
        """Such a request failed for another reason than time: there was no link to measure."""
        self._under_way -= 1
        self._busy_since_s = self._clock()

    def answered_in(self, seconds: float) -> None:
        """A small request took so long."""
        newest = ROUND_TRIP_WEIGHT if self.round_trip_s else 1.0
        self.round_trip_s += newest * (seconds - self.round_trip_s)


class RequestLimits:
    """How much goes into one request, so that it is taken, and within its deadline.

    A request that came too late asks for smaller ones, or no slow link would ever carry any; once they are as small as
    they get, for more patience.
    """

    def __init__(self, settings: UplinkSettings) -> None:
        self._settings = settings
        self.samples, self.bytes = settings.batch_samples, settings.batch_bytes
        self._patience = 1.0

    @property
    def one_at_a_time(self) -> bool:
        """Whether requests should have the link for themselves: what shares a slow one arrives too late together."""
        return self._patience > 1.0

    @property
    def deadline_s(self) -> float:
        """What a request is given."""
        return min(self._settings.deadline_s * self._patience, max(MAX_DEADLINE_S, self._settings.deadline_s))

    def arrived(self, seconds: float) -> None:
        """A request was answered; one that was so soon may have been larger."""
        self.samples = min(self.samples * 2, self._settings.batch_samples)
        if seconds < self.deadline_s / 4:
            self.bytes = min(self.bytes * 2, self._settings.batch_bytes)
            self._patience = max(1.0, self._patience / 2)

    def late(self, size_bytes: int) -> None:
        """A request of that size met its deadline. Several of them share the link: hence a quarter, not a half."""
        least = min(LEAST_REQUEST_BYTES, self._settings.batch_bytes)
        if size_bytes > self.bytes or self.bytes <= least:  # a single sample, or no smaller request is worth its answer
            self._patience = min(2 * self._patience, MOST_PATIENCE)
        self.bytes = max(least, min(self.bytes, size_bytes) // 4)

    def too_large(self, samples: int) -> None:
        """The service does not take requests of so many."""
        self.samples = max(1, samples // 2)
