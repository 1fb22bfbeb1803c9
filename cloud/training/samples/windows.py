"""Windows cut from a series, and the choice of their length."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shared.preprocessing.series import MAX_WINDOW_VALUES

APERIODIC_LENGTH = 16  # time points, if the readings have no period
MIN_LENGTH, MAX_LENGTH = 8, 512
MIN_WINDOWS = 8  # a window is at most the readings divided by this
MIN_PERIOD_CORRELATION = 0.3  # a lag with a lower autocorrelation is not a period
MAX_PERIOD_READINGS = 20_000


def cut_windows(readings: NDArray[np.float64], length: int, stride: int) -> NDArray[np.float64]:
    """Return windows (n, length, channels) of readings (time points, channels), `stride` time points apart.

    There are none if the readings are shorter than a window.
    """
    if len(readings) < length:
        return np.empty((0, length, readings.shape[1]))
    views = np.lib.stride_tricks.sliding_window_view(readings, length, axis=0)[::stride]
    return np.ascontiguousarray(views.transpose(0, 2, 1))


def segments_of(usable: NDArray[np.bool_]) -> list[slice]:
    """Return the runs of true values in (n,) booleans, in order."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], usable, [False]]).astype(np.int8)))
    return [slice(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def choose_length(segments: Sequence[NDArray[np.float64]]) -> int:
    """Return a window length in time points: about one period of the longest segment.

    `segments`: normal readings (time points, channels) each. Without a period it is APERIODIC_LENGTH.
    """
    longest = max(segments, key=len)[:MAX_PERIOD_READINGS]
    channels = longest.shape[1]
    longest_window = min(MAX_LENGTH, len(longest) // MIN_WINDOWS, MAX_WINDOW_VALUES // channels)
    wanted = dominant_period(longest, longest_window) or APERIODIC_LENGTH
    return int(max(min(wanted, longest_window), min(MIN_LENGTH, longest_window), 1))


def dominant_period(readings: NDArray[np.float64], longest: int) -> int:
    """Return the period of readings (time points, channels) in time points, at most `longest`; 0 without a period.

    The period is the first peak of the mean autocorrelation of the channels after its first zero crossing that is at
    least nine tenths of the highest peak, because multiples of the period peak as high.
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
    peaks = peaks[correlation[peaks] >= MIN_PERIOD_CORRELATION]
    if not len(peaks):
        return 0
    high = peaks[correlation[peaks] >= 0.9 * correlation[peaks].max()]
    return int(high[0])
