"""Bound on failed attempts, such as sign-ins, of each address or account; its memory is bounded, too."""

import time
from collections import OrderedDict
from collections.abc import Callable

FAILURES, FAILURES_S = 10, 60.0  # failed attempts of one key in this time
KNOWN_KEYS = 1024


class FailureLimit:
    """Number of failed attempts of each key in a window of time; the keys seen last are kept."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def wait_s(self, key: str) -> float:
        """Return the seconds for which attempts of the key are refused; 0 if they are not."""
        end_s, failures = self._windows.get(key, (0.0, 0))
        return max(0.0, end_s - self._clock()) if failures >= FAILURES else 0.0

    def failed(self, key: str) -> None:
        """Count a failed attempt, or one that has just begun."""
        now_s = self._clock()
        end_s, failures = self._windows.pop(key, (0.0, 0))
        self._windows[key] = (end_s, failures + 1) if now_s < end_s else (now_s + FAILURES_S, 1)
        if len(self._windows) > KNOWN_KEYS:
            self._windows.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """Take back the count of an attempt that has succeeded."""
        if key in self._windows:
            end_s, failures = self._windows[key]
            self._windows[key] = (end_s, max(0, failures - 1))
