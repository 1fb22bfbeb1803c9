"""Isolation Forest gives the scores of scikit-learn."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import IsolationForest as SklearnForest

from cloud.methods import Features, FitContext, VectorFeatures
from cloud.methods.baselines.isolation_forest import TREES, IsolationForest


def as_features(rows: np.ndarray) -> Features:
    return VectorFeatures(torch.from_numpy(rows.astype(np.float32)).unsqueeze(1))


def scikit_learn_scores(normals: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the scores of scikit-learn's forest with the analyzer's seed."""
    seed = int(torch.randint(2**31 - 1, (1,), generator=FitContext(seed=4).generator("isolation_forest")))
    forest = SklearnForest(n_estimators=TREES, max_samples=min(256, len(normals)), random_state=seed).fit(normals)
    scores: np.ndarray = -forest.score_samples(queries)
    return scores


def test_scores_equal_those_of_scikit_learn() -> None:
    pixels = load_digits().data.astype(np.float32)
    normals, queries = pixels[:900], np.concatenate([pixels[800:], 5.0 * pixels[:50]])
    analyzer = IsolationForest()
    analyzer.fit(as_features(normals), FitContext(seed=4))
    expected = scikit_learn_scores(normals, queries)
    np.testing.assert_allclose(analyzer.score(as_features(queries)).scores.numpy(), expected, atol=1e-6)


def test_scores_of_few_and_constant_rows_equal_those_of_scikit_learn() -> None:
    for normals in (np.zeros((30, 3), np.float32), np.eye(3, dtype=np.float32)):
        analyzer = IsolationForest()
        analyzer.fit(as_features(normals), FitContext(seed=4))
        queries = np.array([[0.0, 0.0, 0.0], [5.0, -5.0, 1.0]], dtype=np.float32)
        expected = scikit_learn_scores(normals, queries)
        np.testing.assert_allclose(analyzer.score(as_features(queries)).scores.numpy(), expected, atol=1e-6)


def test_the_state_is_a_small_set_of_arrays() -> None:
    analyzer = IsolationForest()
    analyzer.fit(as_features(np.random.default_rng(0).standard_normal((2000, 10))), FitContext())
    state = analyzer.state()
    assert all(value.dtype in (torch.int64, torch.float64) for value in state.values())
    assert sum(value.nbytes for value in state.values()) < 3e6
