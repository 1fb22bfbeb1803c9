"""A budget that refills with time."""

import time
from collections.abc import Callable


class TokenBucket:
    """A budget that refills at `rate_per_s` up to `burst_s` seconds of it; rate 0: without limit. Starts full.

    The bucket holds at least one token, so that a rate below one a burst still lets single samples through.
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
        """Tokens there are now; infinity where there is no limit."""
        if not self.is_limited:
            return float("inf")
        now = self._clock()
        self._level = min(self.capacity, self._level + max(0.0, now - self._filled_at_s) * self._rate_per_s)
        self._filled_at_s = now
        return self._level

    def spend(self, tokens: float) -> None:
        """Take tokens. The level may fall below zero when a cost is known only afterwards; it is paid back first."""
        if self.is_limited:
            self._level = min(self.capacity, self.level() - tokens)

    def change_rate(self, rate_per_s: float) -> None:
        """Refill at another rate from now on; what is there stays, as far as the bucket holds it."""
        was_limited, level = self.is_limited, self.level()
        self._set(rate_per_s)
        self._level, self._filled_at_s = min(level, self.capacity) if was_limited else self.capacity, self._clock()

    def _set(self, rate_per_s: float) -> None:
        self._rate_per_s = rate_per_s
        self.capacity = max(rate_per_s * self._burst_s, 1.0)
