"""Clock for the age of stored samples, independent of changes to the system clock."""

import time


class SteadyClock:
    """Wall clock of the start, advanced by the monotonic clock: jumps of the system clock age nothing.

    Only the wall clock knows how long a device was off, so a start trusts it unless it is behind `not_before_s`, the
    newest time on disk.
    """

    def __init__(self, not_before_s: float = 0.0) -> None:
        self._start_s, self._start_monotonic_s = max(time.time(), not_before_s), time.monotonic()

    def now_s(self) -> float:
        """Return seconds since the epoch, never less than before."""
        return self._start_s + time.monotonic() - self._start_monotonic_s
