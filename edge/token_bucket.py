"""Token bucket: a budget that refills with time."""

import time
from collections.abc import Callable


class TokenBucket:
    """Bucket that refills at `rate_per_s` up to `burst_s` seconds of it, full at first. Rate 0: no limit.

    The capacity is at least one token, so that a low rate still lets single samples through.
    """

    def __init__(self, rate_per_s: float, burst_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst_s, self._clock = burst_s, clock
        self._set(rate_per_s)
        self._level, self._filled_at_s = self.capacity, clock()

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit."""
        return self._rate_per_s > 0

    def level(self) -> float:
        """Return the tokens available now, infinity without a limit."""
        if not self.is_limited:
            return float("inf")
        now = self._clock()
        self._level = min(self.capacity, self._level + max(0.0, now - self._filled_at_s) * self._rate_per_s)
        self._filled_at_s = now
        return self._level

    def spend(self, tokens: float) -> None:
        """Take tokens. The level may fall below zero if a cost is known only afterwards; the debt refills first."""
        if self.is_limited:
            self._level = min(self.capacity, self.level() - tokens)

    def change_rate(self, rate_per_s: float) -> None:
        """Refill at another rate from now on; tokens stay up to the new capacity."""
        was_limited, level = self.is_limited, self.level()
        self._set(rate_per_s)
        self._level, self._filled_at_s = min(level, self.capacity) if was_limited else self.capacity, self._clock()

    def _set(self, rate_per_s: float) -> None:
        self._rate_per_s = rate_per_s
        self.capacity = max(rate_per_s * self._burst_s, 1.0)
