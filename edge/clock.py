"""The age of what is kept on disk, by a clock that nobody sets."""

import time


class SteadyClock:
    """The wall clock as of the start, moved on by the steady one: while the agent runs, no jump makes anything old.

    How long a device was off is known to its wall clock alone, so a start believes that, unless it is behind
    `not_before_s`, the newest moment on disk.
    """

    def __init__(self, not_before_s: float = 0.0) -> None:
        self._start_s, self._start_monotonic_s = max(time.time(), not_before_s), time.monotonic()

    def now_s(self) -> float:
        """Seconds since the epoch, never less than before."""
        return self._start_s + time.monotonic() - self._start_monotonic_s
