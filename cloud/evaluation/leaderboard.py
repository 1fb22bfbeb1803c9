"""Router leaderboard: detection metrics of edge-cloud cascades by share of samples uploaded.

Every sample has a p-value of the edge's screener and one of the cloud's fusion. A routing decides which samples are
forwarded, and the system's final p-value of a sample is

    p = p_cloud   if the sample was forwarded,
    p = p_edge    otherwise.

The cascade forwards the share with the lowest p_edge; let tau be the largest p_edge among the forwarded samples. Kept
samples have p_edge >= tau, so below tau only the cloud can raise an alarm, and for t < tau

    P(p <= t | normal) = P(p_edge <= tau, p_cloud <= t | normal) <= t.

Below tau a cascade therefore raises no more false alarms than the cloud alone. From tau upwards both edge and cloud can
raise alarms, and the bound is 2 t.

The device accepts kept samples, so they get no verdict of the cloud. Under drift, p_edge of a kept normal sample can be
1e-9 while p_cloud of a confirmed anomaly is 1e-3. The cascade therefore bounds the p-value of kept samples from below
by the median p_cloud of the BOUNDARY_SHARE of forwarded samples closest to tau. This step uses no labels; its cost and
gain are in docs/methods/router.md.

Baselines: `edge_only` forwards nothing, `cloud_only` forwards everything. `random_10` forwards 10 % at random (mean
over draws). `oracle_10` knows the labels and forwards at most 10 %: the samples whose change from p_edge to p_cloud
raises AUROC most. It is the upper bound of a router. Routings are compared by their recall at the same false-alarm
rate, as a share of the recall of `cloud_only` (`recall_kept_at_5_far`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.metrics import Labels, detection_figures

CASCADE_SHARES = (0.01, 0.02, 0.05, 0.10)
COMPARED_SHARE = 0.10  # share forwarded by the random and the oracle router
RANDOM_DRAWS = 20
BOUNDARY_SHARE = 0.1  # share of the forwarded samples
_TIE_STEP = 1e-6  # relative; conformal p-values differ by more with up to a million calibration samples

PValues = NDArray[np.float64]
ComputeMetrics = Callable[[PValues], dict[str, float]]


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """Routing of samples.

    `forwarded`: (n,) bool. `lowest_first`: whether the forwarded samples are those with the lowest edge p-values.
    """

    name: str
    forwarded: NDArray[np.bool_]
    lowest_first: bool = False


def leaderboard(
    labels: Labels,
    edge: PValues,
    cloud: PValues,
    *,
    seed: int = 0,
    compute_metrics: ComputeMetrics | None = None,
    draws: int = RANDOM_DRAWS,
) -> dict[str, dict[str, float]]:
    """Return the metrics of each routing by name: `edge_only`, `random_10`, `cascade_1` and so on.

    `edge`, `cloud`: (n,) p-values in (0, 1]. `compute_metrics`: function from final p-values (n,) to metrics; the
    default is `detection_figures` of the samples; series and video pass metrics of time points or frames. The result
    adds `upload_share`, and `recall_kept_at_R_far` for each recall that is above 0 for `cloud_only`. Raises DataError
    unless there are both normal and anomalous samples.
    """
    compute_metrics = (
        compute_metrics
        if compute_metrics is not None
        else lambda p_values: detection_figures(labels, surprise(p_values))
    )
    cloud_only = compute_metrics(cloud)
    board = {
        routing.name: _figures(compute_metrics, edge, cloud, routing, cloud_only)
        for routing in routings(labels, edge, cloud)
    }
    generator = np.random.default_rng(seed)
    random_name = _percent("random", COMPARED_SHARE)
    drawn = []
    for _ in range(draws):
        routing = RoutingRule(random_name, random_share(len(edge), COMPARED_SHARE, generator))
        drawn.append(_figures(compute_metrics, edge, cloud, routing, cloud_only))
    board[random_name] = {key: float(np.mean([draw[key] for draw in drawn])) for key in drawn[0]}
    return {name: board[name] for name in routing_names()}


def routing_names() -> tuple[str, ...]:
    """Return the names of all routings in display order."""
    cascades = (_percent("cascade", share) for share in CASCADE_SHARES)
    compared = (_percent("random", COMPARED_SHARE), *cascades, _percent("oracle", COMPARED_SHARE))
    return ("edge_only", *compared, "cloud_only")


def routings(labels: Labels, edge: PValues, cloud: PValues) -> list[RoutingRule]:
    """Return all routings except the random one."""
    nothing = np.zeros(len(edge), dtype=np.bool_)
    cascades = [
        RoutingRule(_percent("cascade", share), lowest_share(edge, share), lowest_first=True)
        for share in CASCADE_SHARES
    ]
    oracle = RoutingRule(_percent("oracle", COMPARED_SHARE), oracle_share(labels, edge, cloud, COMPARED_SHARE))
    return [RoutingRule("edge_only", nothing), *cascades, oracle, RoutingRule("cloud_only", ~nothing)]


def final_p_values(edge: PValues, cloud: PValues, routing: RoutingRule) -> PValues:
    """Return the system's p-values (n,): the cloud's for forwarded samples, the edge's for kept ones.

    In a cascade, p-values of kept samples are raised to the lower bound of the module docstring; their order stays.
    """
    forwarded = routing.forwarded
    if not routing.lowest_first or not forwarded.any() or forwarded.all():
        return np.where(forwarded, cloud, edge)
    last = np.argsort(edge[forwarded], kind="stable")[-max(1, round(BOUNDARY_SHARE * int(forwarded.sum()))) :]
    bound = float(np.median(cloud[forwarded][last]))
    ranks = np.unique(edge, return_inverse=True)[1]
    bounds = np.minimum(bound * (1.0 + _TIE_STEP * (ranks + 1.0) / (len(edge) + 1.0)), 1.0)
    return np.where(forwarded, cloud, np.maximum(edge, bounds))


def lowest_share(edge: PValues, share: float) -> NDArray[np.bool_]:
    """Return (n,) bool, true for at most `share` of the samples: the lowest edge p-values, ties in batch order."""
    chosen = np.zeros(len(edge), dtype=np.bool_)
    chosen[np.argsort(edge, kind="stable")[: _quota(len(edge), share)]] = True
    return chosen


def random_share(count: int, share: float, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Return (count,) bool, true for a random `share` of the samples."""
    chosen = np.zeros(count, dtype=np.bool_)
    chosen[generator.permutation(count)[: _quota(count, share)]] = True
    return chosen


def oracle_share(labels: Labels, edge: PValues, cloud: PValues, share: float) -> NDArray[np.bool_]:
    """Return (n,) bool, true for at most `share` of the samples: those that raise AUROC most, each taken alone.

    The gain of an anomaly is the share of normal samples that it overtakes when its p-value becomes the cloud's. The
    gain of a normal sample is the share of anomalies that overtake it. Samples without a gain stay at the edge.
    """
    gain = np.empty(len(edge))
    for kind, sign in ((True, 1.0), (False, -1.0)):
        own, others = labels == kind, np.sort(edge[labels != kind])
        overtaken = _share_above(others, cloud[own]) - _share_above(others, edge[own])
        gain[own] = sign * overtaken / max(int(own.sum()), 1)
    order = np.argsort(-gain, kind="stable")[: _quota(len(edge), share)]
    chosen = np.zeros(len(edge), dtype=np.bool_)
    chosen[order[gain[order] > 0]] = True
    return chosen


def without_ties(p_values: PValues, scores: NDArray[np.float64]) -> PValues:
    """Return p-values (n,) whose ties are broken by the scores (n,) they were computed from.

    Scores are higher for more anomalous samples. Conformal p-values are discrete, so ranking by them alone leaves many
    ties. Each p-value is lowered by at most a millionth of itself; the order by p-value stays.
    """
    _, ranks = np.unique(scores, return_inverse=True)
    result: PValues = p_values * (1.0 - _TIE_STEP * (ranks + 1.0) / (len(scores) + 1.0))
    return result


def surprise(p_values: PValues) -> NDArray[np.float64]:
    """Return -log p as a score (n,), higher for more anomalous samples."""
    return -np.log(p_values)


def _figures(
    compute_metrics: ComputeMetrics, edge: PValues, cloud: PValues, routing: RoutingRule, cloud_only: dict[str, float]
) -> dict[str, float]:
    figures = compute_metrics(final_p_values(edge, cloud, routing))
    kept = {
        name.replace("recall", "recall_kept"): figures[name] / cloud_only[name]
        for name in figures
        if name.startswith("recall_at_") and cloud_only[name] > 0
    }
    return {**figures, **kept, "upload_share": float(routing.forwarded.mean())}


def _share_above(others: NDArray[np.float64], p_values: PValues) -> NDArray[np.float64]:
    """Return the share of `others` (sorted p-values) above each p-value; ties count half."""
    below = np.searchsorted(others, p_values, side="left")
    not_above = np.searchsorted(others, p_values, side="right")
    result: NDArray[np.float64] = 1.0 - (below + not_above) / (2.0 * len(others))
    return result


def _quota(count: int, share: float) -> int:
    return int(count * share + 1e-9)


def _percent(name: str, share: float) -> str:
    return f"{name}_{round(100 * share)}"
