"""Latency histogram of fixed size, for quantiles without storing each value."""

import threading

import numpy as np
from numpy.typing import NDArray

from shared.status import LatencyStatus

_BINS_PER_DECADE = 20
_LOWEST_MS, _DECADES = 1e-3, 10  # one microsecond to four months
_EDGES_MS = _LOWEST_MS * 10.0 ** (np.arange(_BINS_PER_DECADE * _DECADES + 1) / _BINS_PER_DECADE)


class LatencyHistogram:
    """Counts in logarithmic bins, each 12 % wide. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: NDArray[np.int64] = np.zeros(len(_EDGES_MS) + 1, dtype=np.int64)
        self._sum_ms = 0.0

    def record(self, latency_ms: float, count: int = 1) -> None:
        """Count `count` samples that took `latency_ms` each."""
        position = int(np.searchsorted(_EDGES_MS, latency_ms, side="right"))
        with self._lock:
            self._counts[position] += count
            self._sum_ms += latency_ms * count

    def quantile(self, share: float) -> float | None:
        """Return the latency in ms that `share` of the samples did not exceed, or None before the first sample."""
        with self._lock:
            counts = self._counts.copy()
        total = int(counts.sum())
        if total == 0:
            return None
        position = int(np.searchsorted(np.cumsum(counts), share * total))
        lower = _EDGES_MS[max(position - 1, 0)]
        upper = _EDGES_MS[min(position, len(_EDGES_MS) - 1)]
        return float(np.sqrt(lower * upper))

    def summary(self) -> LatencyStatus:
        """Return p50 and p99 in ms, with the number of samples."""
        with self._lock:
            total = int(self._counts.sum())
        return LatencyStatus(p50=_rounded(self.quantile(0.5)), p99=_rounded(self.quantile(0.99)), samples=total)

    def totals(self) -> tuple[int, float]:
        """Return the number of samples and the sum of their latencies in ms."""
        with self._lock:
            return int(self._counts.sum()), self._sum_ms


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
