"""Levels of the score norm are weighted by what they separate."""

import pytest
import torch

from cloud.methods import FitContext, VectorFeatures
from cloud.methods.defaults.score_norm import ScoreNorm, level_weights
from shared.diffusion.training import OptimizerSettings


def test_a_level_is_weighted_by_its_separation_of_perturbed_and_normal_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(500, 3, generator=generator)
    perturbed = torch.randn(500, 3, generator=generator) + torch.tensor([3.0, 0.5, -3.0])
    sharp, blunt, inverted = level_weights(normal, perturbed).tolist()
    assert sharp + blunt + inverted == pytest.approx(1.0)
    assert sharp > 2 * blunt > 100 * inverted


def test_levels_without_separation_have_equal_weights() -> None:
    assert torch.allclose(level_weights(torch.zeros(9, 4), torch.zeros(7, 4)), torch.full((4,), 0.25))


def test_an_anomaly_between_the_normals_scores_high_at_small_noise() -> None:
    """Use normals on a ring: only small noise separates the centre, which is as near to all rows as the ring."""
    angle = 6.2832 * torch.rand(1500, generator=torch.Generator().manual_seed(0))
    ring = torch.stack([angle.cos(), angle.sin()], dim=1) * 1.4
    analyzer = ScoreNorm()
    training = OptimizerSettings(steps=400, batch_size=128)
    analyzer.fit(VectorFeatures(ring.unsqueeze(1)), FitContext(seed=1, training=training))
    weights = analyzer.state()["levels"][:, 3]
    assert weights[:4].sum() > weights[4:].sum()
    near_middle = 0.35 * ring[:100]
    limit = analyzer.score(VectorFeatures(ring[:500].unsqueeze(1))).scores.quantile(0.95)
    assert (analyzer.score(VectorFeatures(near_middle.unsqueeze(1))).scores > limit).float().mean() > 0.9
