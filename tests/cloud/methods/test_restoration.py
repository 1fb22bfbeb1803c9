"""Tests of code shared by restoration methods: error scales, missing entries, noise levels."""

import pytest
import torch

from cloud.methods import VectorFeatures
from cloud.methods.families.guided import GuidedReconstruction
from cloud.methods.families.reconstruction import Reconstruction
from cloud.methods.fit_context import FitContext
from cloud.methods.restoration import Errors, levels_from, opposite_pairs
from shared.diffusion.training import OptimizerSettings


def test_each_coordinate_counts_in_units_of_its_normal_error() -> None:
    normal = Errors(torch.tensor([[[4.0, 100.0]], [[4.0, 100.0]]]))
    doubled_small = Errors(torch.tensor([[[16.0, 100.0]]]))
    doubled_large = Errors(torch.tensor([[[4.0, 400.0]]]))
    sizes = normal.sizes()
    assert sizes.tolist() == [2.0, 10.0]
    assert torch.allclose(doubled_small.log_means(sizes), doubled_large.log_means(sizes))
    assert torch.allclose(normal.log_means(sizes), torch.zeros(2), atol=1e-5)


def test_unobserved_entries_do_not_count() -> None:
    observed = torch.tensor([[[True, False]], [[False, False]]])
    errors = Errors(torch.tensor([[[4.0, 1e6]], [[1e6, 1e6]]]), observed)
    assert errors.sizes().tolist() == [2.0, 1.0]
    assert torch.allclose(errors.log_means(errors.sizes()), torch.zeros(2), atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_levels_start_at_the_depth_and_end_at_zero(steps: int) -> None:
    levels = levels_from(2.0, steps)
    assert len(levels) == steps + 1
    assert levels[0] == pytest.approx(2.0)
    assert levels[-1] == 0.0
    assert (levels.diff() < 0).all()


def test_noise_draws_come_in_opposite_pairs() -> None:
    draws = opposite_pairs(4, (3, 2), torch.Generator().manual_seed(0))
    assert torch.equal(draws[:2], -draws[2:])


@pytest.mark.parametrize("kind", [Reconstruction, GuidedReconstruction])
def test_the_substitute_of_a_missing_entry_does_not_count(
    kind: type[Reconstruction] | type[GuidedReconstruction],
) -> None:
    generator = torch.Generator().manual_seed(4)
    vectors = torch.randn(200, 1, 5, generator=generator)
    analyzer = kind()
    analyzer.fit(VectorFeatures(vectors), FitContext(training=OptimizerSettings(steps=30, batch_size=64)))
    observed = torch.rand(200, 1, 5, generator=generator) > 0.3
    observed[0] = False
    other = torch.where(observed, vectors, 1e4)
    scores = analyzer.score(VectorFeatures(vectors, observed=observed)).scores
    assert torch.isfinite(scores).all()
    assert torch.equal(scores, analyzer.score(VectorFeatures(other, observed=observed)).scores)


def test_an_observed_anomaly_raises_the_score_of_a_row_with_gaps() -> None:
    generator = torch.Generator().manual_seed(4)
    vectors = torch.randn(200, 1, 5, generator=generator)
    analyzer = Reconstruction()
    analyzer.fit(VectorFeatures(vectors), FitContext(training=OptimizerSettings(steps=30, batch_size=64)))
    observed = torch.tensor([True, False, True, True, True]).expand(200, 1, 5)
    broken = vectors.clone()
    broken[:, :, 0] += 8.0
    before = analyzer.score(VectorFeatures(vectors, observed=observed)).scores
    assert (analyzer.score(VectorFeatures(broken, observed=observed)).scores > before).float().mean() > 0.95
