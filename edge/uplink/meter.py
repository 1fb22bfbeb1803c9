"""Measured throughput and round trip of the link, and the limits of a request."""

import time
from collections.abc import Callable

from edge.settings import UplinkSettings

HALF_LIFE_S = 30.0  # of busy time until a measurement counts half
ROUND_TRIP_WEIGHT = 0.2  # of the newest measurement
MIN_REQUEST_BYTES = 16 * 2**10
MAX_DEADLINE_FACTOR = 8.0  # for slow links
MAX_DEADLINE_S = 600.0


class LinkMeter:
    """Meter of the link. Written on the uplink's loop only, read from any thread.

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
        """Note the start of a request with samples while more samples wait."""
        if not self._under_way:
            self._busy_since_s = self._clock()
        self._under_way += 1

    def ended(self, delivered_bytes: int) -> None:
        """Note the answer of such a request, or its deadline with 0 bytes delivered."""
        now_s = self._clock()
        elapsed_s, self._busy_since_s = max(0.0, now_s - self._busy_since_s), now_s
        self._under_way -= 1
        share = 0.5 ** (elapsed_s / HALF_LIFE_S)
        self._bytes = self._bytes * share + delivered_bytes
        self._seconds = self._seconds * share + elapsed_s
        if self._seconds > 0:
            self.throughput_bytes_per_s = max(1.0, self._bytes / self._seconds)  # 0 means unknown

    def abandoned(self) -> None:
        """Note that such a request failed for another reason than its deadline."""
        self._under_way -= 1
        self._busy_since_s = self._clock()

    def answered_in(self, seconds: float) -> None:
        """Note the duration of a small request."""
        newest = ROUND_TRIP_WEIGHT if self.round_trip_s else 1.0
        self.round_trip_s += newest * (seconds - self.round_trip_s)


class RequestLimits:
    """Size limits and deadline of a request.

    A request that came too late asks for smaller ones, or no slow link would ever carry any; once they are as small as
    they get, for more patience.
    """

    def __init__(self, settings: UplinkSettings) -> None:
        self._settings = settings
        self.samples, self.bytes = settings.batch_samples, settings.batch_bytes
        self._deadline_factor = 1.0

    @property
    def one_at_a_time(self) -> bool:
        """Whether requests must not overlap, because a slow link would delay all of them."""
        return self._deadline_factor > 1.0

    @property
    def deadline_s(self) -> float:
        """Deadline of a request in seconds."""
        return min(self._settings.deadline_s * self._deadline_factor, max(MAX_DEADLINE_S, self._settings.deadline_s))

    def arrived(self, seconds: float) -> None:
        """Note an answer after `seconds`; after a quick one, requests may grow."""
        self.samples = min(self.samples * 2, self._settings.batch_samples)
        if seconds < self.deadline_s / 4:
            self.bytes = min(self.bytes * 2, self._settings.batch_bytes)
            self._deadline_factor = max(1.0, self._deadline_factor / 2)

    def late(self, size_bytes: int) -> None:
        """Note a missed deadline: the size shrinks to a quarter, because several requests share the link."""
        least = min(MIN_REQUEST_BYTES, self._settings.batch_bytes)
        if size_bytes > self.bytes or self.bytes <= least:  # a single sample, or the minimum size
            self._deadline_factor = min(2 * self._deadline_factor, MAX_DEADLINE_FACTOR)
        self.bytes = max(least, min(self.bytes, size_bytes) // 4)

    def too_large(self, samples: int) -> None:
        """Note that the service refused a request of `samples` samples as too large."""
        self.samples = max(1, samples // 2)
