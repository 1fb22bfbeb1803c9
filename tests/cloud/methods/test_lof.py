"""LOF gives the factors of scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import LocalOutlierFactor as SklearnFactor

from cloud.methods import FitContext, VectorFeatures
from cloud.methods.baselines.lof import LocalOutlierFactor
from shared.errors import DataError


def test_factors_equal_those_of_scikit_learn() -> None:
    pixels = load_digits().data / 16.0
    pixels = (pixels + 0.01 * np.random.default_rng(0).standard_normal(pixels.shape)).astype(np.float32)  # no ties
    normals, queries = pixels[:600], np.concatenate([pixels[500:900], 3.0 * pixels[900:950]])
    analyzer = LocalOutlierFactor()
    analyzer.fit(VectorFeatures(torch.from_numpy(normals).unsqueeze(1)), FitContext())
    factors = analyzer.score(VectorFeatures(torch.from_numpy(queries).unsqueeze(1))).scores.numpy()
    expected = -SklearnFactor(n_neighbors=20, novelty=True).fit(normals.astype(float)).score_samples(queries)
    np.testing.assert_allclose(factors, expected, rtol=1e-6)


def test_a_gap_near_dense_data_scores_higher_than_one_in_sparse_data() -> None:
    generator = torch.Generator().manual_seed(0)
    dense, sparse = 0.1 * torch.randn(300, 1, 2, generator=generator), 3.0 * torch.randn(300, 1, 2, generator=generator)
    analyzer = LocalOutlierFactor()
    analyzer.fit(VectorFeatures(torch.cat([dense, 30.0 + sparse])), FitContext())
    near_dense, near_sparse = analyzer.score(VectorFeatures(torch.tensor([[[1.0, 1.0]], [[31.0, 31.0]]]))).scores
    assert near_dense > 3.0 > near_sparse


def test_three_normals_can_be_fitted_and_one_cannot() -> None:
    analyzer = LocalOutlierFactor()
    analyzer.fit(VectorFeatures(torch.tensor([[[0.0]], [[1.0]], [[2.0]]])), FitContext())
    assert torch.isfinite(analyzer.score(VectorFeatures(torch.tensor([[[9.0]], [[1.0]]]))).scores).all()
    with pytest.raises(DataError, match="two"):
        analyzer.fit(VectorFeatures(torch.zeros(1, 1, 4)), FitContext())
