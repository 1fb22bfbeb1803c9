"""Tests of DTE-C and DTE-IG, networks that estimate the noise level."""

import math

import pytest
import torch
from torch import Tensor

from cloud.methods import Analyzer, Features, FitContext, VectorFeatures
from cloud.methods.families.dte_c import PUBLISHED, DteC, PublishedDteC, Recipe, mean_log_odds
from cloud.methods.families.dte_ig import DteIg, negative_log_likelihood
from cloud.methods.noised import NoiseNetwork, linear, log_uniform
from shared.diffusion.training import OptimizerSettings

DIM = 16


def plane(count: int, seed: int) -> Tensor:
    """Return normal vectors on a plane in DIM dimensions; noise off the plane reveals its level."""
    spread = torch.randn(2, DIM, generator=torch.Generator().manual_seed(99))
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed)) @ spread / math.sqrt(2)


def fitted(analyzer: Analyzer, steps: int = 400) -> Analyzer:
    training = OptimizerSettings(steps=steps, batch_size=256)
    analyzer.fit(VectorFeatures(plane(2000, 1).unsqueeze(1)), FitContext(seed=5, training=training))
    return analyzer


def noised(sigma: float) -> Features:
    noise = torch.randn(300, DIM, generator=torch.Generator().manual_seed(3))
    return VectorFeatures((plane(300, 2) + sigma * noise).unsqueeze(1))


def test_dte_ig_estimates_the_added_noise_level() -> None:
    analyzer = fitted(DteIg())
    for sigma in (0.2, 0.5, 1.0, 2.0):
        log_variance = analyzer.score(noised(sigma)).scores.mean()
        assert float(log_variance) == pytest.approx(2 * math.log(sigma), abs=1.0)


@pytest.mark.parametrize("kind", [DteC, PublishedDteC, DteIg])
def test_more_noise_scores_higher(kind: type[Analyzer]) -> None:
    analyzer = fitted(kind(), steps=200)
    scores = [float(analyzer.score(noised(sigma)).scores.mean()) for sigma in (0.1, 0.3, 0.9)]
    assert scores[0] < scores[1] < scores[2]


def test_the_noise_schedule_can_be_chosen() -> None:
    assert DteC.recipe.schedule == "log_uniform"
    assert PublishedDteC.recipe is PUBLISHED
    assert PUBLISHED.schedule == "linear"
    linear_levels = DteC(Recipe(schedule="linear"))
    score = float(fitted(linear_levels, steps=100).score(noised(0.5)).scores.mean())
    assert math.isfinite(score)
    assert score != float(fitted(DteC(), steps=100).score(noised(0.5)).scores.mean())


def test_log_uniform_levels_give_each_decade_equal_probability() -> None:
    sigma = log_uniform(0.05, 5.0)(torch.linspace(0, 1, 1001))
    assert float(sigma[0]) == pytest.approx(0.05, rel=1e-4)
    assert float(sigma[500]) == pytest.approx(0.5, rel=1e-4)
    assert float(sigma[-1]) == pytest.approx(5.0, rel=1e-4)


def test_published_levels_follow_the_linear_schedule() -> None:
    sigma = linear(400, 0.01)(torch.tensor([0.0, 0.5, 0.999999]))
    betas = torch.linspace(1e-4, 0.01, 400, dtype=torch.float64)
    expected = (1.0 - torch.cumprod(1.0 - betas, dim=0)).sqrt()[[0, 200, 399]]
    assert torch.allclose(sigma.double(), expected, atol=1e-5)


def test_log_odds_keep_the_order_of_the_mean_and_do_not_saturate() -> None:
    logits = 5.0 * torch.randn(200, 7, generator=torch.Generator().manual_seed(0))
    mean = logits.double().softmax(dim=1) @ torch.linspace(0, 1, 7).double()
    assert torch.allclose(mean_log_odds(logits.double()).sigmoid(), mean, atol=1e-6)
    certain = torch.zeros(2, 7)
    certain[:, -1] = torch.tensor([50.0, 60.0])  # float32 gives the last bin probability 1 in both rows
    assert mean_log_odds(certain).diff() > 1.0


@pytest.mark.parametrize("dim", [1, 6, 80])
def test_the_likelihood_equals_the_inverse_gamma_distribution(dim: int) -> None:
    alpha = torch.tensor(max(dim / 2 - 1, 0.5))
    beta, variance = torch.tensor([0.2, 1.0, 30.0]), torch.tensor([0.4, 2.0, 5.0])
    precision = torch.distributions.Gamma(alpha, beta)
    expected = -(precision.log_prob(1 / variance) - variance.log())  # density of log sigma^2
    mean = beta.log() - torch.digamma(alpha)
    actual = negative_log_likelihood(mean.clamp(max=variance.log() + 3), variance.log(), dim) * alpha
    assert torch.allclose(actual[mean < variance.log() + 3], expected[mean < variance.log() + 3], rtol=1e-4)


def test_the_likelihood_stays_finite_for_extreme_means() -> None:
    mean = torch.tensor([200.0, -200.0], requires_grad=True)
    loss = negative_log_likelihood(mean, torch.tensor([-6.0, 3.0]), 10)
    torch.autograd.backward(loss.sum())
    assert torch.isfinite(loss).all()
    assert mean.grad is not None
    assert mean.grad[0] > 0 > mean.grad[1]


def test_a_loaded_network_has_no_dropout() -> None:
    network = NoiseNetwork(4, (8, 8), 3, radial=True, residual=True, dropout=0.5).eval()
    again = NoiseNetwork.from_state(network.to_state())
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.train()(x), network(x))
