"""Area under the ROC curve, ranks, and false alarms at a recall; all parts of the cloud share them."""

import numpy as np
from numpy.typing import NDArray

from shared.errors import DataError


def auroc(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Return the area under the ROC curve: the share of (anomaly, normal) pairs in the right order.

    Ties count half.

    Args:
        labels: (n,) true for anomalies.
        scores: (n,) higher for more anomalous samples.

    Raises:
        DataError: One kind of sample is missing, a score is not finite, or the shapes differ.
    """
    check_scores(labels, scores)
    return separation(scores[~labels], scores[labels])


def separation(normal: NDArray[np.float64], anomalous: NDArray[np.float64]) -> float:
    """Return the share of pairs in which the anomalous score is the higher one; ties count half."""
    ordered = np.sort(normal)
    below, up_to = (np.searchsorted(ordered, anomalous, side=side) for side in ("left", "right"))
    return float((below + up_to).sum() / (2 * len(ordered) * len(anomalous)))


def false_alarms_at(normal: NDArray[np.float64], anomalous: NDArray[np.float64], recalled: int) -> int:
    """Return how many normals score at least as high as the `recalled`-th highest anomaly; 0 for no anomaly."""
    if not recalled:
        return 0
    threshold = np.sort(anomalous)[::-1][recalled - 1]
    return int(np.count_nonzero(normal >= threshold))


def mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ranks (n,) of values (n,), starting at 1; ties share their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks


def check_scores(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> None:
    """Raise DataError unless both kinds of samples are present and all scores are finite."""
    if labels.shape != scores.shape or labels.ndim != 1:
        raise DataError(f"{scores.shape} scores do not fit {labels.shape} labels.")
    if not labels.any() or labels.all():
        raise DataError("Metrics need both normal and anomalous samples, and one kind is missing.")
    if not np.isfinite(scores).all():
        raise DataError("A score is NaN or infinite, so samples cannot be ordered by it.")
