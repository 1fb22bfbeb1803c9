"""Exponential back-off between attempts."""

import random
from collections.abc import Callable

FULL_WAIT = 0.0  # no jitter
HALF_JITTER = 0.5  # waits between half and the whole: a fleet of devices does not return in step


class Backoff:
    """Waits that double after each failure, up to a bound.

    `jitter` is the largest share that is cut off a wait at random (0 = none). `draw` returns numbers in [0, 1).
    """

    def __init__(
        self, initial_s: float, max_s: float, *, jitter: float = FULL_WAIT, draw: Callable[[], float] = random.random
    ) -> None:
        self._initial_s, self._max_s, self._jitter, self._draw = initial_s, max_s, jitter, draw
        self.failures = 0  # since the last success

    def reset(self) -> None:
        """Start again from the initial wait, after a success."""
        self.failures = 0

    def next_s(self) -> float:
        """Count a failure and return the wait before the next attempt, in seconds."""
        bound_s = min(self._max_s, self._initial_s * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return bound_s * (1.0 - self._jitter * self._draw())
