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
SMOOTHED_LENGTHS = 3.0  # window lengths that a time point's score is averaged over; see docs/methods/series.md
MAX_SMOOTHED = 100  # time points, where a window is a long period


def cut_windows(readings: NDArray[np.float64], length: int, stride: int) -> NDArray[np.float64]:
    """Windows (n, length, channels) of readings (time points, channels), starts `stride` apart; none if too short."""
    if len(readings) < length:
        return np.empty((0, length, readings.shape[1]))
    views = np.lib.stride_tricks.sliding_window_view(readings, length, axis=0)[::stride]
    return np.ascontiguousarray(views.transpose(0, 2, 1))


def windows_to_points(
    scores: NDArray[np.float64],
    starts: NDArray[np.intp],
    length: int,
    total: int,
    smoothed_lengths: float = SMOOTHED_LENGTHS,
) -> NDArray[np.float64]:
    """Scores (total,) of time points from `scores` (n,) of windows of `length` points that begin at `starts` (n,).

    A point's score is the mean over the windows that hold it, averaged once more over its surroundings: a centred
    stretch of `smoothed_lengths` windows, at most MAX_SMOOTHED points (0: no more than the first mean). A point in no
    window, as one whose readings could not be used, gets the score of the nearest point that is in one.
    Raises ValueError without a window, or for one that does not lie in [0, total).
    """
    begins = np.asarray(starts, dtype=np.intp)
    if not len(begins) or len(begins) != len(scores) or begins.min() < 0 or begins.max() + length > total:
        raise ValueError(f"{len(scores)} scores and {len(begins)} windows of {length} do not fit {total} time points.")
    sums, counts = np.zeros(total), np.zeros(total)
    np.add.at(sums, begins, scores)
    np.add.at(counts, begins, 1.0)
    # Convolutions, not running sums: one huge score would cost all later points their digits.
    covered = np.ones(length)
    holding = np.rint(np.convolve(counts, covered)[:total])
    known = np.flatnonzero(holding > 0)
    nearest = np.searchsorted((known[1:] + known[:-1]) / 2, np.arange(total), side="left")
    points: NDArray[np.float64] = (np.convolve(sums, covered)[:total][known] / holding[known])[nearest]
    reach = int(min(smoothed_lengths * length, MAX_SMOOTHED)) // 2
    if reach < 1:
        return points
    stretch = np.ones(2 * reach + 1)
    around = np.convolve(points, stretch)[reach : reach + total]
    result: NDArray[np.float64] = around / np.convolve(np.ones(total), stretch)[reach : reach + total]
    return result


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
