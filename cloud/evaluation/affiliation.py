"""Affiliation precision and recall of alarms on a time series.

Precision measures the distance from alarms to the anomalous ranges, recall the distance from the ranges to the alarms.
Each anomalous range owns the zone of the time axis that is nearer to it than to any other range. Within a zone, a
distance becomes the probability that a random point of the zone is farther away: 1 is perfect, 0.5 is chance.

Source: Huet, Navarro & Rossi, "Local Evaluation of Time Series Anomaly Detection Algorithms", KDD 2022, eqs. 4 to 8.
A time point is a unit interval. All distances are piecewise linear with breakpoints at quarters of a point, so sums
over the midpoints of quarters equal the paper's integrals.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.vus import ranges_of
from shared.errors import DataError

_STEPS_PER_POINT = 4


@dataclass(frozen=True, slots=True)
class Affiliation:
    """Precision, recall and their harmonic mean, all in [0, 1]; all are 0 if nothing is flagged."""

    precision: float
    recall: float
    f1: float


def affiliation(labels: NDArray[np.bool_], flagged: NDArray[np.bool_]) -> Affiliation:
    """Return affiliation metrics of flagged time points (n,) bool against labels (n,) bool.

    Raises DataError if the shapes differ or no time point is anomalous.
    """
    if labels.shape != flagged.shape or not labels.any():
        raise DataError("Affiliation metrics need one flag per label and at least one anomalous time point.")
    starts, ends = ranges_of(labels)
    borders = np.concatenate([[0.0], (ends[:-1] + starts[1:]) / 2, [float(len(labels))]])
    alarms = ranges_of(flagged)
    precisions, recalls = [], []
    for start, end, low, high in zip(starts, ends, borders[:-1], borders[1:], strict=True):
        pieces = _clip(alarms, low, high)
        recalls.append(_recall(start, end, low, high, pieces))
        if len(pieces):
            precisions.append(_precision(start, end, low, high, pieces))
    precision = float(np.mean(precisions)) if precisions else 0.0
    recall = float(np.mean(recalls))
    f1 = 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
    return Affiliation(precision, recall, f1)


def _clip(ranges: tuple[NDArray[np.intp], NDArray[np.intp]], low: float, high: float) -> NDArray[np.float64]:
    """Return the intersections (k, 2) of ranges with a zone."""
    starts, ends = np.maximum(ranges[0], low), np.minimum(ranges[1], high)
    inside = ends > starts
    return np.column_stack([starts[inside], ends[inside]])


def _midpoints(start: float, end: float) -> NDArray[np.float64]:
    count = round((end - start) * _STEPS_PER_POINT)
    return start + (np.arange(count) + 0.5) / _STEPS_PER_POINT


def _precision(start: float, end: float, low: float, high: float, pieces: NDArray[np.float64]) -> float:
    """Return the precision in one zone (eq. 5).

    This is the mean, over the flagged time, of the probability that a random point is farther from the range.
    """
    at = np.concatenate([_midpoints(first, last) for first, last in pieces])
    distance = np.maximum(np.maximum(start - at, at - end), 0.0)
    farther = (np.maximum(start - low - distance, 0.0) + np.maximum(high - end - distance, 0.0)) / (high - low)
    return float(np.where(distance > 0, farther, 1.0).mean())


def _recall(start: float, end: float, low: float, high: float, pieces: NDArray[np.float64]) -> float:
    """Return the recall in one zone (eq. 6).

    This is the mean, over the anomalous time, of the probability that a random point is farther away than the nearest
    alarm.
    """
    if not len(pieces):
        return 0.0
    at = _midpoints(start, end)
    # Number of pieces that start before each point; the last one may contain it.
    after = np.searchsorted(pieces[:, 0], at)
    to_left = np.where(after > 0, at - pieces[np.maximum(after - 1, 0), 1], np.inf)
    to_right = np.where(after < len(pieces), pieces[np.minimum(after, len(pieces) - 1), 0] - at, np.inf)
    distance = np.maximum(np.minimum(to_left, to_right), 0.0)
    farther = (np.maximum(at - distance - low, 0.0) + np.maximum(high - at - distance, 0.0)) / (high - low)
    return float(np.where(distance > 0, farther, 1.0).mean())
