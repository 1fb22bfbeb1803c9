"""PCA scores dependences, also of rows with gaps."""

import numpy as np
import pytest
import torch
from sklearn.covariance import EmpiricalCovariance
from sklearn.datasets import load_iris

from cloud.methods import FitContext, VectorFeatures
from cloud.methods.baselines.pca import PrincipalComponents


def fitted(normals: torch.Tensor) -> PrincipalComponents:
    analyzer = PrincipalComponents()
    analyzer.fit(VectorFeatures(normals.unsqueeze(1)), FitContext())
    return analyzer


def test_the_score_without_floored_components_is_the_mahalanobis_distance() -> None:
    rows = load_iris().data.astype(np.float32)
    scores = fitted(torch.from_numpy(rows[50:])).score(VectorFeatures(torch.from_numpy(rows).unsqueeze(1))).scores
    expected = EmpiricalCovariance().fit(rows[50:]).mahalanobis(rows)
    np.testing.assert_allclose(scores.exp().square() * 4, expected, rtol=1e-3)


def test_a_row_with_gaps_is_scored_by_its_observed_columns_alone() -> None:
    """Compare with an analyzer fitted without the missing columns."""
    generator = torch.Generator().manual_seed(0)
    normals = torch.randn(500, 5, generator=generator) @ torch.randn(5, 5, generator=generator)
    queries = normals[:40] + 2.0 * torch.randn(40, 5, generator=generator)
    observed = torch.tensor([True, False, True, True, False]).expand(40, 5)
    masked = VectorFeatures(torch.where(observed, queries, 0.0).unsqueeze(1), observed=observed.unsqueeze(1))
    scores = fitted(normals).score(masked).scores
    kept = observed[0]
    alone = fitted(normals[:, kept]).score(VectorFeatures(queries[:, kept].unsqueeze(1))).scores
    assert torch.allclose(scores, alone, atol=1e-3)


def test_a_broken_dependence_raises_a_minor_component() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(400, 1, generator=generator)
    analyzer = fitted(torch.cat([first, first + 0.1 * torch.randn(400, 1, generator=generator)], dim=1))
    kept, broken = analyzer.score(VectorFeatures(torch.tensor([[[1.5, 1.5]], [[1.0, -1.0]]]))).scores.exp()
    assert kept < 2.0
    assert broken > 5.0


def test_a_constant_column_has_the_floor_as_deviation() -> None:
    normals = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    normals[:, 2] = 0.0
    score = fitted(normals).score(VectorFeatures(torch.tensor([[[0.0, 0.0, 1.0]]]))).scores.exp().square() * 3
    assert float(score) == pytest.approx(1.0 / 0.01, rel=0.05)
