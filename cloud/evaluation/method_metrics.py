"""Metrics of every method and every routing on labelled samples."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.leaderboard import RANDOM_DRAWS, ComputeMetrics, leaderboard, without_ties
from cloud.evaluation.metrics import FALSE_ALARM_RATES, Labels, detection_figures, false_alarms
from cloud.evaluation.scoring import MethodScores, Scored
from cloud.serving.analysis import FUSED
from shared.errors import DataError

Figures = dict[str, dict[str, float]]
SLOW_DRAWS = 5


def sample_figures(labels: Labels, methods: Mapping[str, MethodScores]) -> Figures:
    """Return the metrics of each method: `auroc`, `auprc`, recalls at fixed false-alarm rates, and realised rates.

    Realised rates need p-values: `false_alarms_at_5` is the share of normal samples with p <= 0.05, with its 95 %
    interval in `false_alarms_at_5_low` and `_high`; `recall_at_p_5` is the share of anomalies with p <= 0.05. Raises
    DataError unless there are both normal and anomalous samples.
    """
    return {
        name: {**detection_figures(labels, method.scores), **alarm_figures(labels, method.p_values)}
        for name, method in methods.items()
    }


def alarm_figures(labels: Labels, p_values: NDArray[np.float64] | None) -> dict[str, float]:
    """Return realised false alarms and recall of calibrated p-values (n,) by nominal rate; empty without p-values."""
    figures: dict[str, float] = {}
    if p_values is None:
        return figures
    for rate in FALSE_ALARM_RATES:
        alarms = false_alarms(p_values[~labels], rate)
        percent = f"{100 * rate:g}"
        figures[f"recall_at_p_{percent}"] = float(np.mean(p_values[labels] <= rate))
        figures[f"false_alarms_at_{percent}"] = alarms.rate
        figures[f"false_alarms_at_{percent}_low"] = alarms.low
        figures[f"false_alarms_at_{percent}_high"] = alarms.high
    return figures


def routing_figures(
    labels: Labels, scored: Scored, *, seed: int = 0, compute_metrics: ComputeMetrics | None = None
) -> Figures:
    """Return the router leaderboard of the device's screener and the cloud's fused verdict.

    `labels`: (n,) labels of the routed samples. `compute_metrics`: see `leaderboard`; it is slow, so the random routing
    is then averaged over SLOW_DRAWS draws only.
    """
    edge, cloud = edge_and_cloud(scored)
    draws = RANDOM_DRAWS if compute_metrics is None else SLOW_DRAWS
    return leaderboard(labels, edge, cloud, seed=seed, compute_metrics=compute_metrics, draws=draws)


def edge_and_cloud(scored: Scored) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the p-values (n,) of the device's screener and of the cloud's fusion, with ties broken by scores.

    Raises DataError if one of them has no p-values.
    """
    p_values = []
    for name in (scored.edge, FUSED):
        method = scored.methods[name]
        if method.p_values is None:
            raise DataError(f"{name} has no p-values, but routing needs them.")
        p_values.append(without_ties(method.p_values, method.scores))
    return p_values[0], p_values[1]
