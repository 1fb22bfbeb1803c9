"""Tests of guidance towards the sample."""

import torch

from cloud.methods.families.guided import GuidedDenoiser
from shared.diffusion.samplers import sample_ddim
from shared.diffusion.schedules import diffuse
from tests.shared.diffusion.gaussian import GaussianDenoiser

PRIOR = GaussianDenoiser(torch.zeros(3), torch.eye(3))
SIGMAS = torch.tensor([2.0, 1.0, 0.3, 0.0])


def restored(guidance: float, target: torch.Tensor) -> torch.Tensor:
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    return sample_ddim(GuidedDenoiser(PRIOR, target, guidance), diffuse(target, 2.0, noise), SIGMAS)


def test_guidance_equals_the_published_formula() -> None:
    """Compare with DDAD in the paper's variables: eps - w sqrt(1 - alpha_bar) (y_t - x_t)."""
    x, target, sigma, weight = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([[0.8]]), 0.6
    alpha_bar = 1.0 / (1.0 + sigma**2)
    epsilon = (x - PRIOR(x, sigma)) / sigma
    scaled_x = alpha_bar.sqrt() * x
    scaled_target = alpha_bar.sqrt() * target + (1.0 - alpha_bar).sqrt() * epsilon
    pulled = epsilon - weight * (1.0 - alpha_bar).sqrt() * (scaled_target - scaled_x)
    clean = (scaled_x - (1.0 - alpha_bar).sqrt() * pulled) / alpha_bar.sqrt()
    assert torch.allclose(GuidedDenoiser(PRIOR, target, weight)(x, sigma), clean, atol=1e-5)


def test_more_guidance_restores_nearer_to_the_sample() -> None:
    target = torch.full((50, 3), 2.0)
    distances = [(restored(guidance, target) - target).norm() for guidance in (0.0, 0.5, 1.0)]
    assert distances[0] > distances[1] > distances[2]


def test_guidance_never_overshoots_the_sample() -> None:
    x, target, sigma = torch.zeros(1, 3), torch.ones(1, 3), torch.tensor([[50.0]])
    assert torch.allclose(GuidedDenoiser(PRIOR, target, 100.0)(x, sigma), target)
