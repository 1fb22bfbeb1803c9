"""Samples of simulated deployments: p-values of the edge, and whether the cloud calls them anomalous."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.baselines import NEIGHBOURS
from cloud.evaluation.protocols import find_sets, rows_and_labels
from shared.errors import DataError
from shared.miss_control import CELLS, THRESHOLDS, cells_of

CLOUD_FALSE_ALARMS = 0.01  # the default of analysis.false_alarm_rate
MIN_NORMALS = 2000
_MOST_NORMALS, _MOST_ANOMALIES = 8000, 2000
_POINTS = 4000


@dataclass(frozen=True, slots=True)
class Population:
    """Weighted points, each (points,), in the order of falling p-values; the weights sum to 1."""

    name: str
    p_values: NDArray[np.float64]
    anomalous: NDArray[np.bool_]
    weights: NDArray[np.float64]

    def cells(self) -> NDArray[np.float64]:
        """Return the share of samples in each cell, normal and anomalous, (CELLS, 2)."""
        shares = np.zeros((CELLS, 2))
        np.add.at(shares, (cells_of(self.p_values), self.anomalous.astype(int)), self.weights)
        return shares

    def miss_rates(self) -> NDArray[np.float64]:
        """Return the share of anomalies among the samples down to and with each point, (points,)."""
        return np.cumsum(self.weights * self.anomalous) / np.cumsum(self.weights)

    def least_upload(self, limit: float) -> float | None:
        """Return the least share of samples to forward so that the miss rate holds; None if no threshold does."""
        last = np.append(self.p_values[1:] < self.p_values[:-1], True)  # equal p-values have one threshold
        holds = np.flatnonzero((self.miss_rates() <= limit) & last)
        return float(1.0 - np.cumsum(self.weights)[holds[-1]]) if len(holds) else None

    def miss_rates_at_thresholds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return miss rate and share of forwarded samples at each of THRESHOLDS."""
        stays = np.cumsum(self.cells(), axis=0)[: len(THRESHOLDS)]
        total = stays.sum(axis=1)
        return stays[:, 1] / np.maximum(total, 1e-300), 1.0 - total


def population(
    name: str, normal: NDArray[np.float64], anomalies: NDArray[np.float64], share: float, confirmed: NDArray[np.bool_]
) -> Population:
    """Return a population with this share of anomalies.

    Args:
        name: Name for reports.
        normal: p-values of normal samples, (normals,).
        anomalies: p-values of anomalies, (anomalies,).
        share: Share of anomalies.
        confirmed: Whether the cloud calls each of both anomalous, (normals + anomalies,).
    """
    p_values = np.concatenate([normal, anomalies])
    weights = np.concatenate(
        [np.full(len(normal), (1 - share) / len(normal)), np.full(len(anomalies), share / len(anomalies))]
    )
    order = np.argsort(-p_values, kind="stable")
    return Population(name, p_values[order], confirmed[order], weights[order])


def drawn_population(random: np.random.Generator) -> Population:
    """Return a population with drawn shares and powers.

    0.1 to 3 % of the samples are anomalies. Most are clear to the screener, with p-values u ** a of uniform u; the
    others are not. The cloud calls CLOUD_FALSE_ALARMS of the normal samples anomalous, too: mostly those that are rare
    to the screener, which learned from the cloud's scores.
    """
    share, clear = 10 ** random.uniform(-3, -1.5), random.uniform(0.6, 0.95)
    powers = random.uniform(8, 25), random.uniform(1.5, 5)
    uniform = (np.arange(_POINTS) + 0.5) / _POINTS
    count = round(clear * _POINTS)
    anomalies = np.concatenate(
        [((np.arange(n) + 0.5) / n) ** power for n, power in zip((count, _POINTS - count), powers, strict=True)]
    )
    false_alarms = round(CLOUD_FALSE_ALARMS * _POINTS)
    rare = (np.arange(false_alarms) + 0.5) / false_alarms
    confirmed = np.concatenate([np.zeros(_POINTS, bool), np.ones(_POINTS, bool)])
    confirmed[np.searchsorted(uniform, rare ** random.uniform(2, 6))] = True
    return population("drawn", uniform, anomalies, share, confirmed)


def measured_populations(folder: Path, share: float = 0.01) -> list[Population]:
    """Return a population for each table of at least MIN_NORMALS normal rows, with this share of anomalies.

    The distance to the 5th nearest normal row stands for the cloud, with CLOUD_FALSE_ALARMS, and a small ReLU network
    that was distilled from it for the screener. Both learn from half of the normal rows; a quarter calibrates their
    p-values, and the rest is the population. Raises DataError for an unusable table, and without a large one.
    """
    found = []
    for item in find_sets("adbench", folder):
        rows, labels = rows_and_labels(item.path)
        random = np.random.default_rng(0)
        normal, anomalies = (random.permutation(rows[labels == value]) for value in (False, True))
        if len(normal) < MIN_NORMALS or not len(anomalies):
            continue
        normal, anomalies = normal[:_MOST_NORMALS], anomalies[:_MOST_ANOMALIES]
        half, quarter = len(normal) // 2, 3 * len(normal) // 4
        cloud, edge = _scores(normal[:half], np.concatenate([normal[half:], anomalies]), random)
        held_out, normals = quarter - half, len(normal) - quarter
        edge_p, cloud_p = (_p_values(values[:held_out], values[held_out:]) for values in (edge, cloud))
        confirmed = cloud_p <= max(CLOUD_FALSE_ALARMS, 1 / (held_out + 1))
        found.append(population(item.name, edge_p[:normals], edge_p[normals:], share, confirmed))
    if not found:
        raise DataError(f"{folder}: no table with {MIN_NORMALS} normal rows and some anomalies.")
    return found


def _scores(
    normal: NDArray[np.float64], judged: NDArray[np.float64], random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the scores (judged,) of kNN, and of the network that learns them from normal rows and noisy copies."""
    from sklearn.neighbors import NearestNeighbors
    from sklearn.neural_network import MLPRegressor

    mean, deviation = normal.mean(axis=0), normal.std(axis=0)
    scale = np.where(deviation > 0, deviation, 1.0)
    normal, judged = (normal - mean) / scale, (judged - mean) / scale
    neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(normal)
    spread = 10 ** random.uniform(-1.5, 0.7, (len(normal), 1))
    noisy = normal + spread * random.standard_normal(normal.shape) * (random.random(normal.shape) < 0.5)
    of_itself = neighbours.kneighbors(normal)[0][:, -1]
    of_noisy, of_judged = (neighbours.kneighbors(rows, NEIGHBOURS)[0][:, -1] for rows in (noisy, judged))
    targets = np.log(np.concatenate([of_itself, of_noisy]) + 1e-3)
    network = MLPRegressor(hidden_layer_sizes=(64, 64), max_iter=40, random_state=0, early_stopping=True)
    network.fit(_compressed(np.concatenate([normal, noisy])), targets)
    return of_judged, np.asarray(network.predict(_compressed(judged)), np.float64)


def _compressed(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return standardised rows with values beyond three deviations on a logarithmic scale."""
    beyond = np.maximum(np.abs(rows) - 3.0, 0.0)
    return np.asarray(np.sign(rows) * (np.minimum(np.abs(rows), 3.0) + np.log1p(beyond)), np.float64)


def _p_values(held_out: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return conformal p-values."""
    above = len(held_out) - np.searchsorted(np.sort(held_out), scores, side="left")
    return np.asarray((above + 1.0) / (len(held_out) + 1.0), np.float64)
