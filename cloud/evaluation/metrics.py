"""Detection metrics: AUROC, AUPRC, recall at a false-alarm rate, and realised false-alarm rates.

Labels are (n,) bool, true for anomalies. Scores are (n,), higher for more anomalous samples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.metrics import auroc, check_scores
from shared.errors import DataError

FALSE_ALARM_RATES = (0.01, 0.05)
CONFIDENCE = 0.95

Labels = NDArray[np.bool_]
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """Realised false-alarm rate: flagged and total normal samples, their ratio and its confidence interval."""

    flagged: int
    normals: int
    rate: float
    low: float
    high: float


def detection_figures(labels: Labels, scores: Scores, rates: Sequence[float] = FALSE_ALARM_RATES) -> dict[str, float]:
    """Return `auroc`, `auprc`, and `recall_at_R_far` for each false-alarm rate of R per cent.

    Raises DataError unless there are both normal and anomalous samples and all scores are finite.
    """
    recalls = {recall_name(rate): recall_at(labels, scores, rate) for rate in rates}
    return {"auroc": auroc(labels, scores), "auprc": average_precision(labels, scores), **recalls}


def recall_name(rate: float) -> str:
    """Return the name of the recall metric at a false-alarm rate: `recall_at_5_far` for 0.05."""
    return f"recall_at_{100 * rate:g}_far"


def average_precision(labels: Labels, scores: Scores) -> float:
    """Return the average precision: the sum of precision times the step in recall, without interpolation.

    Tied scores form one step, so the result does not depend on their order.
    """
    check_scores(labels, scores)
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.cumsum(labels[order])[last_of_ties]
    precision = hits / (last_of_ties + 1)
    return float((np.diff(hits, prepend=0) * precision).sum() / hits[-1])


def recall_at(labels: Labels, scores: Scores, rate: float) -> float:
    """Return the share of anomalies found while at most `rate` of the normal samples are flagged."""
    threshold = threshold_at(labels, scores, rate)
    return float(np.mean(scores[labels] > threshold))


def threshold_at(labels: Labels, scores: Scores, rate: float) -> float:
    """Return the lowest score that at most `rate` of the normal samples exceed."""
    check_scores(labels, scores)
    normal = np.sort(scores[~labels])[::-1]
    allowed = int(rate * len(normal) + 1e-9)
    return float(normal[allowed]) if allowed < len(normal) else -math.inf


def false_alarms(normal_p_values: NDArray[np.float64], rate: float) -> FalseAlarms:
    """Return the share of normal samples flagged at a nominal false-alarm rate, with its exact 95 % interval.

    `normal_p_values`: (n,) p-values of normal samples. Raises DataError if there are none.
    """
    normals = len(normal_p_values)
    if not normals:
        raise DataError("A false-alarm rate needs normal samples, but there are none.")
    flagged = int(np.count_nonzero(normal_p_values <= rate))
    low, high = clopper_pearson(flagged, normals)
    return FalseAlarms(flagged, normals, flagged / normals, low, high)


def clopper_pearson(hits: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the exact confidence interval of a proportion of `hits` in `trials`.

    Source: Clopper & Pearson, "The use of confidence or fiducial limits", Biometrika 26, 1934.
    """
    from scipy.stats import beta

    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(beta.ppf(1 - tail, hits + 1, trials - hits))
    return low, high
