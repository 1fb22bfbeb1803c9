"""Stillness, a measure of flat lines: how much less a channel moves within a window than in any normal window.

A stuck sensor repeats its last reading. Such a window is close to the mean of the normal ones and its readings follow
the other channels as well as noise allows, so neither distances nor conditional surprises show it. Its missing noise
does. With r the mean square difference of successive observed readings of a channel in standardised units,

    z = (mean - log(r + FLOOR)) / unit * sqrt(pairs / all pairs)        stillness = log(1 + max(0, z - limit))

where `mean` and `unit` are mean and standard deviation of the logarithm on normal windows. `limit` is the z that one of
RETURN_FACTOR times as many normal windows as those of the fit would exceed if the tail of z is exponential: the return
level of peaks over a threshold with shape 0 (Coles, "An Introduction to Statistical Modeling of Extreme Values", 2001,
section 4.3.3). It is at least the highest z of the fit, and MIN_LIMIT. No anomaly is needed to set it. The stillness is
0 for all normal windows of the fit, so a channel that rests in normal operation has none.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

FLOOR = 1e-6  # mean square difference, in variances of the channel; rounding of float32 readings stays below it
MIN_LIMIT = 3.0  # standard deviations
RETURN_FACTOR = 10.0
TAIL_SHARE = 0.1  # highest share of z that the tail is fitted to
MIN_UNIT = 0.1
MIN_PAIRS = 4  # successive readings; the logarithm of fewer differences varies too much
NEVER = 1e3  # limit of a channel that rests in normal operation


@dataclass(frozen=True, slots=True)
class Stillness:
    """Fitted stillness of each channel. `mean`, `unit`, `limit`: (channels,), see above; `pairs`: of a whole window."""

    mean: NDArray[np.float64]
    unit: NDArray[np.float64]
    limit: NDArray[np.float64]
    pairs: int

    @classmethod
    def fit(cls, windows: NDArray[np.float64], observed: NDArray[np.bool_]) -> Self:
        """Fit on standardised normal windows (n, length, channels) and their mask."""
        roughness, counts = log_roughness(windows, observed)
        fitted = cls.without(windows.shape[2], windows.shape[1])
        for channel in range(windows.shape[2]):
            known = counts[:, channel] >= MIN_PAIRS
            values = roughness[known, channel]
            if len(values) < 2 or values.min() <= np.log(2 * FLOOR):
                continue  # it rests in normal operation
            mean, unit = float(values.mean()), max(float(values.std()), MIN_UNIT)
            z = (mean - values) / unit * np.sqrt(counts[known, channel] / fitted.pairs)
            fitted.mean[channel], fitted.unit[channel] = mean, unit
            fitted.limit[channel] = max(return_level(z), float(z.max()), MIN_LIMIT)
        return fitted

    @classmethod
    def without(cls, channels: int, length: int) -> Self:
        """Return a stillness that is always 0, as of bundles made before it was measured."""
        return cls(np.zeros(channels), np.ones(channels), np.full(channels, NEVER), max(length - 1, 1))

    @classmethod
    def from_array(cls, array: NDArray[Any], length: int) -> Self:
        """Return the stillness that `to_array` wrote, for windows of `length` time points."""
        mean, unit, limit = np.array(array, dtype=np.float64)
        return cls(mean, unit, limit, max(length - 1, 1))

    def to_array(self) -> NDArray[np.float64]:
        """Return mean, unit and limit as one array (3, channels)."""
        return np.stack([self.mean, self.unit, self.limit])

    def of(self, windows: NDArray[np.float64], observed: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the stillness (n, channels) of standardised windows; 0 with fewer than MIN_PAIRS differences."""
        roughness, counts = log_roughness(windows, observed)
        z = (self.mean - roughness) / self.unit * np.sqrt(counts / self.pairs)
        return np.where(counts >= MIN_PAIRS, np.log1p(np.maximum(z - self.limit, 0.0)), 0.0)


def return_level(values: NDArray[np.float64]) -> float:
    """Return the value that one of RETURN_FACTOR times as many values (n,) would exceed, with an exponential tail."""
    threshold = float(np.quantile(values, 1 - TAIL_SHARE))
    excesses = values[values > threshold] - threshold
    if not len(excesses):
        return threshold
    return threshold + float(excesses.mean()) * float(np.log(len(excesses) * RETURN_FACTOR))


def log_roughness(
    windows: NDArray[np.float64], observed: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return log(r + FLOOR) and the number of pairs of successive observed readings, both (n, channels)."""
    squares = np.square(np.diff(windows, axis=1))
    if observed.all():
        counts = np.full((len(windows), windows.shape[2]), squares.shape[1])
        total = squares.sum(axis=1)
    else:
        pairs = observed[:, 1:] & observed[:, :-1]
        counts, total = pairs.sum(axis=1), np.where(pairs, squares, 0.0).sum(axis=1)
    return np.log(total / np.maximum(counts, 1) + FLOOR), counts
