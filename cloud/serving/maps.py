"""Anomaly maps and contributions: patch scores and residuals on a scale that is dark for normal samples.

A map is (height, width) uint8. Its scale is fitted on held-out normals: their median becomes 0, their 99.9 % quantile
NORMAL_TOP, and 255 lies well outside. A normal sample is therefore dark in any unit of the scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

NORMAL_TOP = 96.0
NORMAL_QUANTILE = 0.999
MAX_RATIO = 1e6  # keeps squares of residuals finite
MIN_SPAN = 1e-6


@dataclass(frozen=True)
class Scale:
    """Median `low` and 99.9 % quantile `high` of normal values: (channels,) float64, or (1,) for one scale."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def fit(cls, normal_values: NDArray[Any]) -> Self:
        """Return the scale of normal values (n, channels)."""
        low, high = np.quantile(np.asarray(normal_values, dtype=np.float64), [0.5, NORMAL_QUANTILE], axis=0)
        return cls(low, np.maximum(high, low + MIN_SPAN))

    def ratio(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return values (..., channels) with the low end of the scale at 0 and the high end at 1; not negative."""
        with np.errstate(over="ignore"):
            ratio = (np.asarray(values, dtype=np.float64) - self.low) / (self.high - self.low)
        finite: NDArray[np.float64] = np.clip(np.nan_to_num(ratio, nan=MAX_RATIO), 0.0, MAX_RATIO)
        return finite

    def to_json(self) -> dict[str, list[float]]:
        """Return the scale as JSON values."""
        return {"low": self.low.tolist(), "high": self.high.tolist()}

    @classmethod
    def from_json(cls, value: Mapping[str, Sequence[float]]) -> Self:
        """Return the scale that `to_json` wrote. Raises KeyError or ValueError for other values."""
        low, high = (np.asarray(value[key], dtype=np.float64) for key in ("low", "high"))
        if low.ndim != 1 or low.shape != high.shape or not (high > low).all():
            raise ValueError("a scale has two lists of equal length, and each high value is above its low value")
        return cls(low, high)


def to_bytes(ratio: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return a map of any shape from ratios: 1, the upper end of normal values, becomes NORMAL_TOP."""
    brightness: NDArray[np.uint8] = np.minimum(np.rint(ratio * NORMAL_TOP), 255.0).astype(np.uint8)
    return brightness


def contributions(ratio: NDArray[np.float64], names: Sequence[str]) -> list[tuple[tuple[str, float], ...]]:
    """Return the share of each channel in the residual of each sample, for `ratio` (n, ..., channels).

    The shares of a sample sum to 1. There are none if no value lies above the low end of its scale.
    """
    weights = np.square(ratio).reshape(len(ratio), -1, ratio.shape[-1]).sum(axis=1)
    totals = weights.sum(axis=1)
    shares = weights / np.where(totals > 0, totals, 1.0)[:, np.newaxis]
    return [
        tuple(zip(names, row, strict=True)) if total > 0 else ()
        for row, total in zip(shares.tolist(), totals.tolist(), strict=True)
    ]
