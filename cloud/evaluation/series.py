"""Series: from window scores to time points, and the figures of point scores."""

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.affiliation import affiliation
from cloud.evaluation.metrics import Labels, Scores, detection_figures
from cloud.evaluation.vus import vus_pr
from shared.errors import DataError

FLAGGED_SHARES = np.geomspace(0.001, 0.5, 25)  # of the points, at the thresholds that affiliation F1 is tried at


def point_scores(window_scores: NDArray[np.float64], starts: NDArray[np.intp], length: int, points: int) -> Scores:
    """Scores (points,) of time points: the mean over the windows that hold a point.

    `window_scores` (windows,) of windows that begin at `starts` (windows,) and are `length` long. A point in no window,
    as one whose readings could not be used, gets the score of the nearest point that has one. Raises DataError if
    there is no window.
    """
    if not len(window_scores):
        raise DataError(f"{points} time points hold no usable window of {length}.")
    sums, counts = np.zeros(points), np.zeros(points)
    for offset in range(length):  # not by cumulative sums: one huge score would cost all later points their digits
        np.add.at(sums, starts + offset, window_scores)
        np.add.at(counts, starts + offset, 1.0)
    known = np.flatnonzero(counts > 0)
    values = sums[known] / counts[known]
    nearest = np.searchsorted((known[1:] + known[:-1]) / 2, np.arange(points), side="left")
    result: Scores = values[nearest]
    return result


def series_figures(labels: Labels, scores: Scores) -> dict[str, float]:
    """`vus_pr`, the point-wise figures, and `f1` and `affiliation_f1`, each at its best threshold.

    Those thresholds know the labels: the two F1 figures say how good it can get, for all methods alike.
    """
    return {
        "vus_pr": vus_pr(labels, scores),
        **detection_figures(labels, scores),
        "f1": best_f1(labels, scores)[0],
        "affiliation_f1": best_affiliation_f1(labels, scores),
    }


def best_affiliation_f1(labels: Labels, scores: Scores) -> float:
    """The highest affiliation F1 over thresholds that flag from a thousandth to half of the points."""
    thresholds = np.unique(np.quantile(scores, 1.0 - FLAGGED_SHARES))
    return max(affiliation(labels, scores >= threshold).f1 for threshold in thresholds)


def best_f1(labels: Labels, scores: Scores) -> tuple[float, float]:
    """The highest point-wise F1 over all thresholds, and the threshold that gives it (flagged: at least as high)."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last_of_ties = np.append(np.flatnonzero(np.diff(ordered)), len(scores) - 1)
    hits = np.cumsum(labels[order])[last_of_ties]
    f1 = 2.0 * hits / (last_of_ties + 1 + int(labels.sum()))
    best = int(np.argmax(f1))
    return float(f1[best]), float(ordered[last_of_ties[best]])
