"""The router leaderboard: what a cascade of edge and cloud finds, at which share of samples uploaded.

Every sample has a p-value of the edge's screener and one of the cloud's fusion. A routing decides which samples are
forwarded, and the system's final p-value of a sample is

    p = p_cloud   if it was forwarded,
    p = p_edge    if it was not: the edge's own opinion stands.

The cascade forwards the share with the lowest p_edge; let tau be the largest of these. Samples that stay have
p_edge >= tau, so below tau only the cloud can raise an alarm, and for t < tau

    P(p <= t | normal) = P(p_edge <= tau, p_cloud <= t | normal) <= t:

a cascade has no more false alarms than the cloud alone. From tau upwards both may, and the bound is 2 t. What stays
gets no verdict: the device accepted it. Where normality drifts, its p-value may be 1e-9 all the same, where the cloud
says 1e-3 of an anomaly it confirmed. So in a cascade a sample that stays is no more suspicious than what the cloud says
of the least suspicious samples it was sent: its p-value is at least the median p_cloud of the BOUNDARY_SHARE of the
forwarded ones next to tau. No label takes part in that. (What it costs and gains: docs/methods/router.md.) Nothing
forwarded is the edge alone, all forwarded the cloud alone. What the cloud clears sinks among the normal samples.

`random_10` forwards 10 % at random (mean over draws); `oracle_10` sees the labels and forwards the at most 10 % of
samples whose change from p_edge to p_cloud helps AUROC most: what a perfect router could do. Routings are compared by
recall at the same false-alarm rate, as a share of what the cloud alone finds there (`recall_kept_at_5_far`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.metrics import Labels, detection_figures

CASCADE_SHARES = (0.01, 0.02, 0.05, 0.10)
COMPARED_SHARE = 0.10  # of the random and the oracle router
RANDOM_DRAWS = 20
BOUNDARY_SHARE = 0.1  # of the forwarded samples
_TIE_STEP = 1e-6  # relative; steps between conformal p-values are larger as long as there are fewer than a million

PValues = NDArray[np.float64]
Judge = Callable[[PValues], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Routing:
    """One way to route: (n,) bool, true where a sample is forwarded. `lowest_first`: those are the lowest p-values."""

    name: str
    forwarded: NDArray[np.bool_]
    lowest_first: bool = False


def leaderboard(
    labels: Labels,
    edge: PValues,
    cloud: PValues,
    *,
    seed: int = 0,
    judge: Judge | None = None,
    draws: int = RANDOM_DRAWS,
) -> dict[str, dict[str, float]]:
    """Figures of each routing by name: `edge_only`, `cloud_only`, `random_10`, `cascade_1` and so on, `oracle_10`.

    `edge`, `cloud`: (n,) p-values in (0, 1]. `judge`: figures of final p-values (n,), by default `detection_figures`
    of the samples; series and video judge time points instead. To them come `upload_share`, and of each recall
    `recall_kept_at_R_far`, where the cloud alone finds anything at all. Raises DataError unless there are both normal
    and anomalous samples.
    """
    judge = judge if judge is not None else lambda p_values: detection_figures(labels, surprise(p_values))
    alone = judge(cloud)
    board = {routing.name: _figures(judge, edge, cloud, routing, alone) for routing in routings(labels, edge, cloud)}
    generator = np.random.default_rng(seed)
    at_random = _percent("random", COMPARED_SHARE)
    drawn = [
        _figures(judge, edge, cloud, Routing(at_random, random_share(len(edge), COMPARED_SHARE, generator)), alone)
        for _ in range(draws)
    ]
    board[at_random] = {key: float(np.mean([draw[key] for draw in drawn])) for key in drawn[0]}
    return {name: board[name] for name in names()}


def names() -> tuple[str, ...]:
    """The routings in the order they are shown."""
    cascades = (_percent("cascade", share) for share in CASCADE_SHARES)
    compared = (_percent("random", COMPARED_SHARE), *cascades, _percent("oracle", COMPARED_SHARE))
    return ("edge_only", *compared, "cloud_only")


def routings(labels: Labels, edge: PValues, cloud: PValues) -> list[Routing]:
    """All routings but the random one."""
    nothing = np.zeros(len(edge), dtype=np.bool_)
    cascades = [
        Routing(_percent("cascade", share), lowest_share(edge, share), lowest_first=True) for share in CASCADE_SHARES
    ]
    oracle = Routing(_percent("oracle", COMPARED_SHARE), oracle_share(labels, edge, cloud, COMPARED_SHARE))
    return [Routing("edge_only", nothing), *cascades, oracle, Routing("cloud_only", ~nothing)]


def final_p_values(edge: PValues, cloud: PValues, routing: Routing) -> PValues:
    """The system's p-values (n,): the cloud's where a sample was forwarded, the edge's elsewhere.

    Where the lowest are forwarded, those that stay are held above what the cloud says of the last ones forwarded, in
    the edge's order.
    """
    forwarded = routing.forwarded
    if not routing.lowest_first or not forwarded.any() or forwarded.all():
        return np.where(forwarded, cloud, edge)
    last = np.argsort(edge[forwarded], kind="stable")[-max(1, round(BOUNDARY_SHARE * int(forwarded.sum()))) :]
    least = float(np.median(cloud[forwarded][last]))
    ranks = np.unique(edge, return_inverse=True)[1]
    held = np.minimum(least * (1.0 + _TIE_STEP * (ranks + 1.0) / (len(edge) + 1.0)), 1.0)
    return np.where(forwarded, cloud, np.maximum(edge, held))


def lowest_share(edge: PValues, share: float) -> NDArray[np.bool_]:
    """(n,) true for the at most `share` of samples with the lowest edge p-values; of ties the first in the batch."""
    chosen = np.zeros(len(edge), dtype=np.bool_)
    chosen[np.argsort(edge, kind="stable")[: _quota(len(edge), share)]] = True
    return chosen


def random_share(count: int, share: float, generator: np.random.Generator) -> NDArray[np.bool_]:
    """(count,) true for a random `share` of the samples."""
    chosen = np.zeros(count, dtype=np.bool_)
    chosen[generator.permutation(count)[: _quota(count, share)]] = True
    return chosen


def oracle_share(labels: Labels, edge: PValues, cloud: PValues, share: float) -> NDArray[np.bool_]:
    """(n,) true for the at most `share` of samples by whose forwarding AUROC grows most, each taken alone.

    An anomaly gains by the share of normal samples it overtakes when its p-value becomes the cloud's, a normal sample
    by that of the anomalies which overtake it. Samples that would lose stay at the edge.
    """
    gain = np.empty(len(edge))
    for kind, sign in ((True, 1.0), (False, -1.0)):
        own, others = labels == kind, np.sort(edge[labels != kind])
        overtaken = _standing(others, cloud[own]) - _standing(others, edge[own])
        gain[own] = sign * overtaken / max(int(own.sum()), 1)
    order = np.argsort(-gain, kind="stable")[: _quota(len(edge), share)]
    chosen = np.zeros(len(edge), dtype=np.bool_)
    chosen[order[gain[order] > 0]] = True
    return chosen


def without_ties(p_values: PValues, scores: NDArray[np.float64]) -> PValues:
    """p-values (n,) in which the scores (n,) that they were made of, higher being more anomalous, break the ties.

    Conformal p-values are steps; a routing or ranking by them would order the samples of one step at random. Each is
    lowered by at most a millionth of itself: the order by p-value stays.
    """
    _, ranks = np.unique(scores, return_inverse=True)
    result: PValues = p_values * (1.0 - _TIE_STEP * (ranks + 1.0) / (len(scores) + 1.0))
    return result


def surprise(p_values: PValues) -> NDArray[np.float64]:
    """-log p: a score, higher being more anomalous."""
    return -np.log(p_values)


def _figures(
    judge: Judge, edge: PValues, cloud: PValues, routing: Routing, alone: dict[str, float]
) -> dict[str, float]:
    figures = judge(final_p_values(edge, cloud, routing))
    kept = {
        name.replace("recall", "recall_kept"): figures[name] / alone[name]
        for name in figures
        if name.startswith("recall_at_") and alone[name] > 0
    }
    return {**figures, **kept, "upload_share": float(routing.forwarded.mean())}


def _standing(others: NDArray[np.float64], p_values: PValues) -> NDArray[np.float64]:
    """The share of the others (sorted p-values) above each p-value, ties counting half."""
    below = np.searchsorted(others, p_values, side="left")
    not_above = np.searchsorted(others, p_values, side="right")
    result: NDArray[np.float64] = 1.0 - (below + not_above) / (2.0 * len(others))
    return result


def _quota(count: int, share: float) -> int:
    return int(count * share + 1e-9)


def _percent(name: str, share: float) -> str:
    return f"{name}_{round(100 * share)}"
