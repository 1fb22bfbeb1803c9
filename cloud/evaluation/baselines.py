"""Baselines: distance to the 5th nearest normal sample, and Isolation Forest.

Both are fitted on all normal samples, which are standardised and not processed further, as in published tables.

Sources: Ramaswamy, Rastogi & Shim, SIGMOD 2000 (kNN); Liu, Ting & Zhou, ICDM 2008 (Isolation Forest).
"""

import numpy as np
from numpy.typing import NDArray

from shared.errors import DataError

KNN, ISOLATION_FOREST = "baseline_knn", "baseline_isolation_forest"
NEIGHBOURS = 5
MAX_REFERENCE = 50_000
_ROWS_PER_BLOCK = 2048


def baseline_scores(
    normal: NDArray[np.floating], test: NDArray[np.floating], *, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """Fit the baselines on normal samples and return their scores by name.

    `normal`: (n, features); beyond MAX_REFERENCE samples a random subset is used. `test`: (m, features). Scores are
    (m,), higher for more anomalous samples. Raises DataError for fewer than two normal samples.
    """
    if len(normal) < 2:
        raise DataError(f"Baselines need at least 2 normal samples, not {len(normal)}.")
    generator = np.random.default_rng(seed)
    if len(normal) > MAX_REFERENCE:
        normal = normal[np.sort(generator.permutation(len(normal))[:MAX_REFERENCE])]
    values = np.asarray(normal, dtype=np.float64)
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    scale = np.where(deviation > 0, deviation, 1.0)
    reference, queries = (values - mean) / scale, (np.asarray(test, dtype=np.float64) - mean) / scale
    return {KNN: _knn(reference, queries), ISOLATION_FOREST: _isolation_forest(reference, queries, seed)}


def _knn(reference: NDArray[np.float64], queries: NDArray[np.float64]) -> NDArray[np.float64]:
    from sklearn.neighbors import NearestNeighbors

    neighbours = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(reference))).fit(reference)
    blocks = [queries[start : start + _ROWS_PER_BLOCK] for start in range(0, len(queries), _ROWS_PER_BLOCK)]
    return np.concatenate([np.zeros(0), *(neighbours.kneighbors(block)[0][:, -1] for block in blocks)])


def _isolation_forest(reference: NDArray[np.float64], queries: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(random_state=seed % 2**32).fit(reference)
    scores: NDArray[np.float64] = -forest.score_samples(queries)
    return scores
