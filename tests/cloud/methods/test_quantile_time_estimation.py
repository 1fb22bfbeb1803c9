"""Time estimation on normal scores: relations of skewed features, distant values and ties."""

import torch
from torch import Tensor

from cloud.methods import FitContext, VectorFeatures
from cloud.methods.defaults.quantile_time_estimation import KNOTS, QuantileScale, QuantileTimeEstimation
from cloud.methods.defaults.time_estimation import TimeEstimation
from cloud.metrics import separation


def features(rows: Tensor) -> VectorFeatures:
    return VectorFeatures(rows.unsqueeze(1))


def skewed(count: int) -> Tensor:
    """Return rows of two features with heavy tails and unit variance, equal but for factors of about 1.6."""
    generator = torch.Generator().manual_seed(0)
    first, noise = torch.randn(count, generator=generator), torch.randn(count, generator=generator)
    rows = torch.stack([first, first + 0.2 * noise], dim=1).mul(2.5).exp()
    return (rows - rows.mean(dim=0)) / rows.std(dim=0)


def test_broken_relations_of_skewed_features_are_found() -> None:
    normals, fresh = skewed(2400).split((2000, 400))
    broken = torch.stack([fresh[:, 0], fresh[:, 1].roll(1)], dim=1)
    found = {}
    for kind in (TimeEstimation, QuantileTimeEstimation):
        analyzer = kind()
        analyzer.fit(features(normals), FitContext())
        normal, anomalous = (analyzer.score(features(rows)).scores.numpy() for rows in (fresh, broken))
        found[kind.name] = separation(normal, anomalous)
    assert found["time_estimation"] < 0.8
    assert found["quantile_time_estimation"] > 0.85


def test_the_scale_is_normal_within_the_values_seen_and_linear_beyond_them() -> None:
    rows = skewed(20_000)
    scale = QuantileScale.fit(rows, None)
    assert KNOTS // 2 < scale.values.shape[1] <= KNOTS
    inside = scale.of(rows)
    for share in (0.05, 0.5, 0.95):
        expected = torch.special.ndtri(torch.tensor(share))
        assert torch.allclose(inside.quantile(share, dim=0), expected, atol=0.02)
    ends = torch.stack([rows.amin(dim=0), rows.amax(dim=0)])
    step = torch.tensor([[-3.0], [3.0]])
    assert torch.allclose(scale.of(ends + step) - scale.of(ends), step.expand(2, 2), atol=1e-4)


def test_equal_values_share_a_place_and_a_constant_feature_keeps_its_deviations() -> None:
    rows = torch.zeros(400, 2)
    rows[300:, 0] = 2.0
    rows[:, 1] = 0.3 + 1e-6 * torch.randn(400, generator=torch.Generator().manual_seed(0))
    places = QuantileScale.fit(rows, None).of(torch.tensor([[0.0, 0.3], [2.0, 1.3]]))
    middle = torch.special.ndtri(torch.tensor([300 / 2 / 400, 1 - 100 / 2 / 400]))
    assert torch.allclose(places[:, 0], middle, atol=1e-5)
    assert torch.allclose(places[:, 1], torch.tensor([0.0, 1.0]), atol=1e-3)
