"""Cutting series into windows, how long a window should be, and the way back from windows' scores to time points."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shared.preprocessing.series import MAX_WINDOW_VALUES

APERIODIC_LENGTH = 16  # time points, where the readings have no period
MIN_LENGTH, MAX_LENGTH = 8, 512
MIN_WINDOWS_SHARE = 8  # a window is at most this fraction of the readings
PERIOD_CORRELATION = 0.3  # a lag that correlates less is no period
MAX_PERIOD_READINGS = 20_000


def cut_windows(readings: NDArray[np.float64], length: int, stride: int) -> NDArray[np.float64]:
    """Windows (n, length, channels) of readings (time points, channels), starts `stride` apart; none if too short."""
    if len(readings) < length:
        return np.empty((0, length, readings.shape[1]))
    views = np.lib.stride_tricks.sliding_window_view(readings, length, axis=0)[::stride]
    return np.ascontiguousarray(views.transpose(0, 2, 1))


def segments_of(usable: NDArray[np.bool_]) -> list[slice]:
    """The runs of true in (n,) booleans, in order."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], usable, [False]]).astype(np.int8)))
    return [slice(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def choose_length(segments: Sequence[NDArray[np.float64]]) -> int:
    """Window length in time points: one period of the longest normal segment (time points, channels), if it has one."""
    longest = max(segments, key=len)[:MAX_PERIOD_READINGS]
    channels = longest.shape[1]
    most = min(MAX_LENGTH, len(longest) // MIN_WINDOWS_SHARE, MAX_WINDOW_VALUES // channels)
    wanted = dominant_period(longest, most) or APERIODIC_LENGTH
    return int(max(min(wanted, most), min(MIN_LENGTH, most), 1))


def dominant_period(readings: NDArray[np.float64], longest: int) -> int:
    """The lag in time points at which the readings (time points, channels) repeat themselves best; 0: they do not.

    The first peak of the mean autocorrelation of the channels, after it first fell below zero, that is at least nine
    tenths of the highest one: its multiples peak as high.
    """
    centred = readings - readings.mean(axis=0)
    deviations = centred.std(axis=0)
    moving = centred[:, deviations > 0] / deviations[deviations > 0]
    if not moving.shape[1] or longest < 4:
        return 0
    size = 2 ** int(np.ceil(np.log2(2 * len(moving))))
    spectrum = np.abs(np.fft.rfft(moving, size, axis=0)) ** 2
    correlation = np.fft.irfft(spectrum, size, axis=0)[: longest + 2].mean(axis=1)
    correlation /= np.maximum(len(moving) - np.arange(len(correlation)), 1)  # fewer pairs at longer lags
    below = np.flatnonzero(correlation < 0)
    if not len(below):
        return 0
    inner = np.arange(max(int(below[0]), 1), len(correlation) - 1)
    peaks = inner[(correlation[inner] >= correlation[inner - 1]) & (correlation[inner] >= correlation[inner + 1])]
    peaks = peaks[correlation[peaks] >= PERIOD_CORRELATION]
    if not len(peaks):
        return 0
    high = peaks[correlation[peaks] >= 0.9 * correlation[peaks].max()]
    return int(high[0])
