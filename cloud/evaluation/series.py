"""Series metrics: point scores from window scores, and metrics of point scores."""

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.affiliation import affiliation
from cloud.evaluation.metrics import Labels, Scores, detection_figures
from cloud.evaluation.vus import vus_pr
from shared.errors import DataError

FLAGGED_SHARES = np.geomspace(0.001, 0.5, 25)  # shares of flagged points at the candidate thresholds of affiliation F1


def point_scores(window_scores: NDArray[np.float64], starts: NDArray[np.intp], length: int, points: int) -> Scores:
    """Return the score (points,) of each time point: the mean over the windows that contain it.

    `window_scores`: (windows,). `starts`: (windows,) first time point of each window. `length`: time points of a
    window. A point outside all windows, such as one with unusable readings, gets the score of the nearest scored point.
    Raises DataError if there is no window.
    """
    if not len(window_scores):
        raise DataError(f"no usable window of {length} in {points} time points.")
    sums, counts = np.zeros(points), np.zeros(points)
    for offset in range(length):  # no cumulative sums: one huge score would cost all later points precision
        np.add.at(sums, starts + offset, window_scores)
        np.add.at(counts, starts + offset, 1.0)
    known = np.flatnonzero(counts > 0)
    values = sums[known] / counts[known]
    nearest = np.searchsorted((known[1:] + known[:-1]) / 2, np.arange(points), side="left")
    result: Scores = values[nearest]
    return result


def series_figures(labels: Labels, scores: Scores) -> dict[str, float]:
    """Return `vus_pr`, the point-wise metrics, and `f1` and `affiliation_f1` at their best thresholds.

    The best thresholds use the labels, so both F1 figures are upper bounds, for all methods alike.
    """
    return {
        "vus_pr": vus_pr(labels, scores),
        **detection_figures(labels, scores),
        "f1": best_f1(labels, scores)[0],
        "affiliation_f1": best_affiliation_f1(labels, scores),
    }


def best_affiliation_f1(labels: Labels, scores: Scores) -> float:
    """Return the highest affiliation F1 over thresholds that flag 0.1 % to 50 % of the points."""
    thresholds = np.unique(np.quantile(scores, 1.0 - FLAGGED_SHARES))
    return max(affiliation(labels, scores >= threshold).f1 for threshold in thresholds)


def best_f1(labels: Labels, scores: Scores) -> tuple[float, float]:
    """Return the highest point-wise F1 over all thresholds and its threshold; scores at the threshold are flagged."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last_of_ties = np.append(np.flatnonzero(np.diff(ordered)), len(scores) - 1)
    hits = np.cumsum(labels[order])[last_of_ties]
    f1 = 2.0 * hits / (last_of_ties + 1 + int(labels.sum()))
    best = int(np.argmax(f1))
    return float(f1[best]), float(ordered[last_of_ties[best]])
