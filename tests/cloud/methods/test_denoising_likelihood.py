"""Tests of the denoising likelihood against closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from cloud.methods import FitContext, VectorFeatures
from cloud.methods.defaults.denoising_likelihood import DRAWS, LEVELS, SIGMA_RANGE, DenoisingLikelihood
from cloud.methods.defaults.score_norm import ScoreNorm
from cloud.methods.masks import sum_observed
from shared.diffusion.denoisers import VectorDenoiser
from shared.diffusion.schedules import geometric_sigmas
from shared.diffusion.training import OptimizerSettings

DIM = 3


def normal(count: int, seed: int) -> Tensor:
    return torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed))


def two_clusters(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    centres = torch.where(torch.rand((count, 1), generator=generator) < 0.5, 1.0, -1.0)
    return centres * torch.tensor([1.0, 0.0, 0.0]) + 0.15 * torch.randn(count, DIM, generator=generator)


def fitted(
    analyzer: DenoisingLikelihood | ScoreNorm, vectors: Tensor, steps: int = 240
) -> DenoisingLikelihood | ScoreNorm:
    training = OptimizerSettings(steps=steps, batch_size=128)
    analyzer.fit(VectorFeatures(vectors.unsqueeze(1)), FitContext(seed=1, training=training))
    return analyzer


def test_the_score_of_a_normal_distribution_is_half_the_squared_distance() -> None:
    analyzer = fitted(DenoisingLikelihood(), normal(4000, 1))
    fresh = normal(1500, 2)
    nats = analyzer.score(VectorFeatures(fresh.unsqueeze(1))).scores.numpy()
    squared = fresh.square().sum(dim=1).numpy()
    # The integral of sigma^2 / (1 + sigma^2)^2 over log sigma is 1/2, less the parts outside the range of levels.
    low, high = SIGMA_RANGE
    expected = 0.5 * (1 / (1 + low**2) - 1 / (1 + high**2))
    slope = np.polyfit(squared, nats, 1)[0]
    assert abs(slope - expected) < 0.15 * expected
    assert np.corrcoef(squared, nats)[0, 1] > 0.95


def test_a_point_halfway_between_clusters_is_unlikely() -> None:
    clusters = two_clusters(3000)
    halfway = VectorFeatures(torch.zeros(1, 1, DIM))
    within = VectorFeatures(clusters[:500].unsqueeze(1))

    def share_below(analyzer: DenoisingLikelihood | ScoreNorm) -> float:
        return float((analyzer.score(within).scores < analyzer.score(halfway).scores).float().mean())

    assert share_below(fitted(DenoisingLikelihood(), clusters)) > 0.99
    assert share_below(fitted(ScoreNorm(), clusters)) < 0.9


def test_noise_is_drawn_once_and_stored_in_the_state() -> None:
    analyzer = fitted(DenoisingLikelihood(), normal(500, 1), steps=60)
    features = VectorFeatures(normal(40, 3).unsqueeze(1))
    copy = DenoisingLikelihood.from_state(analyzer.state())
    assert torch.equal(analyzer.score(features).scores, copy.score(features).scores)
    assert torch.allclose(
        analyzer.score(features).scores[7:8], analyzer.score(features.at(slice(7, 8))).scores, rtol=1e-5
    )


def test_substitutes_of_missing_values_do_not_become_the_likeliest_values() -> None:
    generator = torch.Generator().manual_seed(6)
    values = torch.where(torch.rand((3000, 4), generator=generator) < 0.5, 1.0, -1.0)
    values = values + 0.1 * torch.randn(values.shape, generator=generator)
    observed = torch.rand(values.shape, generator=generator) < 0.5
    observed[:, 0] |= ~observed.any(dim=1)
    normals = VectorFeatures(torch.where(observed, values, 0.0).unsqueeze(1), observed=observed.unsqueeze(1))
    analyzer = DenoisingLikelihood()
    analyzer.fit(normals, FitContext(seed=1, training=OptimizerSettings(steps=240, batch_size=128)))
    everywhere = torch.ones(400, 1, 4, dtype=torch.bool)
    likely = analyzer.score(VectorFeatures(values[:400].unsqueeze(1), observed=everywhere)).scores
    at_the_mean = analyzer.score(VectorFeatures(torch.zeros(1, 1, 4), observed=everywhere[:1])).scores
    assert float((likely < at_the_mean).float().mean()) > 0.95


@pytest.mark.parametrize("missing", [False, True])
def test_all_levels_and_draws_in_one_call_equal_a_loop_over_them(missing: bool) -> None:
    generator = torch.Generator().manual_seed(7)
    vectors = normal(300, 8)
    observed = torch.rand(vectors.shape, generator=generator) < 0.7 if missing else torch.ones_like(vectors).bool()
    analyzer = fitted(DenoisingLikelihood(), normal(500, 1), steps=60)
    state = analyzer.state()
    denoiser = VectorDenoiser.from_state(state)
    clean = torch.where(observed, vectors, 0.0)
    sigmas = geometric_sigmas(LEVELS, *SIGMA_RANGE).float()
    expected = torch.zeros(len(vectors))
    step = math.log(SIGMA_RANGE[1] / SIGMA_RANGE[0]) / (LEVELS - 1)
    with torch.no_grad():
        for level, sigma in enumerate(sigmas):
            width = 0.5 * step if level in (0, LEVELS - 1) else step
            for noise in state["noise"][level]:
                errors = clean - denoiser(clean + sigma * noise, sigma.expand(len(clean), 1))
                expected += width / DRAWS * sum_observed((errors / sigma).square(), observed)
    scores = analyzer.score(VectorFeatures(vectors.unsqueeze(1), observed.unsqueeze(1))).scores
    assert torch.allclose(scores, expected, rtol=1e-4, atol=1e-5)
