"""Affiliation precision and recall: how near alarms are to the anomalous ranges they belong to, and the other way.

Each anomalous range owns the zone of the time axis that is nearer to it than to any other. In a zone a distance is
turned into the chance that a random point of the zone would be farther away: 1 is perfect, 0.5 is chance.

Source: Huet, Navarro & Rossi, "Local Evaluation of Time Series Anomaly Detection Algorithms", KDD 2022, eqs. 4 to 8.
A time point is a unit interval. All distances are piecewise linear with corners at quarters of a point, so that sums
over the middles of quarters are the paper's integrals.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.vus import ranges_of
from shared.errors import DataError

_FINE = 4  # parts of a time point


@dataclass(frozen=True, slots=True)
class Affiliation:
    """Precision and recall in [0, 1] and their harmonic mean; all are 0 where nothing is flagged."""

    precision: float
    recall: float
    f1: float


def affiliation(labels: NDArray[np.bool_], flagged: NDArray[np.bool_]) -> Affiliation:
    """Affiliation figures of flagged time points (n,) bool against labels (n,) bool.

    Raises DataError without an anomalous time point.
    """
    if labels.shape != flagged.shape or not labels.any():
        raise DataError("Affiliation needs a flag for each label, and at least one anomalous time point.")
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
    """The parts (k, 2) of ranges that lie in a zone."""
    starts, ends = np.maximum(ranges[0], low), np.minimum(ranges[1], high)
    inside = ends > starts
    return np.column_stack([starts[inside], ends[inside]])


def _middles(start: float, end: float) -> NDArray[np.float64]:
    count = round((end - start) * _FINE)
    return start + (np.arange(count) + 0.5) / _FINE


def _precision(start: float, end: float, low: float, high: float, pieces: NDArray[np.float64]) -> float:
    """Mean over the flagged time in the zone of the chance to be farther from the range (eq. 5)."""
    at = np.concatenate([_middles(first, last) for first, last in pieces])
    distance = np.maximum(np.maximum(start - at, at - end), 0.0)
    farther = (np.maximum(start - low - distance, 0.0) + np.maximum(high - end - distance, 0.0)) / (high - low)
    return float(np.where(distance > 0, farther, 1.0).mean())


def _recall(start: float, end: float, low: float, high: float, pieces: NDArray[np.float64]) -> float:
    """Mean over the anomalous time of the chance to be farther from it than the nearest alarm is (eq. 6)."""
    if not len(pieces):
        return 0.0
    at = _middles(start, end)
    after = np.searchsorted(pieces[:, 0], at)  # pieces that start before each point: the last may hold it
    to_left = np.where(after > 0, at - pieces[np.maximum(after - 1, 0), 1], np.inf)
    to_right = np.where(after < len(pieces), pieces[np.minimum(after, len(pieces) - 1), 0] - at, np.inf)
    distance = np.maximum(np.minimum(to_left, to_right), 0.0)
    farther = (np.maximum(at - distance - low, 0.0) + np.maximum(high - at - distance, 0.0)) / (high - low)
    return float(np.where(distance > 0, farther, 1.0).mean())
