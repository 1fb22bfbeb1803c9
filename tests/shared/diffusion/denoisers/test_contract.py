"""Contract of every denoiser."""

import torch
from torch import Tensor

from shared.diffusion.denoisers import score
from tests.shared.diffusion.gaussian import GaussianDenoiser


def test_score_is_the_gradient_of_the_log_density(mean: Tensor, covariance: Tensor, generator: torch.Generator) -> None:
    sigma = torch.full((4, 1), 0.7, dtype=torch.float64)
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64).requires_grad_()
    noised = covariance + sigma[0] ** 2 * torch.eye(3, dtype=torch.float64)
    log_density = torch.distributions.MultivariateNormal(mean, noised).log_prob(x).sum()
    (gradient,) = torch.autograd.grad(log_density, x)
    assert torch.allclose(score(GaussianDenoiser(mean, covariance), x, sigma), gradient)


def test_one_level_a_sample_serves_windows_and_images(mean: Tensor, covariance: Tensor) -> None:
    x = torch.arange(12, dtype=torch.float64).reshape(4, 3)
    sigma = torch.linspace(0.5, 2.0, 4, dtype=torch.float64).unsqueeze(1)
    denoiser = GaussianDenoiser(mean, covariance)
    as_images = score(denoiser, x.reshape(4, 1, 1, 3), sigma)
    assert torch.allclose(as_images.flatten(1), score(denoiser, x, sigma))
