"""The figures of every method, and of every routing, from what a bundle said of labelled samples."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.leaderboard import RANDOM_DRAWS, Judge, leaderboard, without_ties
from cloud.evaluation.metrics import FALSE_ALARM_RATES, Labels, detection_figures, false_alarms
from cloud.evaluation.scoring import MethodScores, Scored
from cloud.serving.analysis import FUSED
from shared.errors import DataError

Figures = dict[str, dict[str, float]]
SLOW_DRAWS = 5


def sample_figures(labels: Labels, said: Mapping[str, MethodScores]) -> Figures:
    """By method: `auroc`, `auprc`, recalls at fixed false-alarm rates, and where it has p-values the realised rates.

    `false_alarms_at_5` is the share of normal samples with p <= 0.05, `.._low` and `.._high` its 95 % interval,
    `recall_at_p_5` the share of anomalies with such a p-value. Raises DataError unless there are both kinds.
    """
    return {
        name: {**detection_figures(labels, method.scores), **alarm_figures(labels, method.p_values)}
        for name, method in said.items()
    }


def alarm_figures(labels: Labels, p_values: NDArray[np.float64] | None) -> dict[str, float]:
    """What happens at the false-alarm rates a user may set, by calibrated p-values (n,); nothing without them."""
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


def routing_figures(labels: Labels, scored: Scored, *, seed: int = 0, judge: Judge | None = None) -> Figures:
    """The router leaderboard of what a bundle said: the device's screener against the cloud's fused verdict.

    `labels`: (n,) of the samples that are routed. `judge`: as of `leaderboard`; slow ones see fewer random draws.
    """
    edge, cloud = edge_and_cloud(scored)
    draws = RANDOM_DRAWS if judge is None else SLOW_DRAWS
    return leaderboard(labels, edge, cloud, seed=seed, judge=judge, draws=draws)


def edge_and_cloud(scored: Scored) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The p-values (n,) a router acts on: the device's screener's and the cloud's fused ones, scores breaking ties."""
    p_values = []
    for name in (scored.edge, FUSED):
        method = scored.methods[name]
        if method.p_values is None:
            raise DataError(f"{name} has no p-values, and routing is by p-value.")
        p_values.append(without_ties(method.p_values, method.scores))
    return p_values[0], p_values[1]
