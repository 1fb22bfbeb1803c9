"""Gaussian data has its noise, v and score in closed form: all parametrisations must be one denoiser."""

import pytest
import torch
from torch import Tensor

from shared.diffusion.denoisers import (
    GaussianDenoiser,
    from_epsilon,
    from_score,
    from_v,
    from_x0,
    nearest_timesteps,
)
from shared.diffusion.samplers import sample_ddim
from shared.diffusion.schedules import cosine_alpha_bars, linear_alpha_bars, sampling_steps, sigmas_of

ADAPTERS = {"epsilon": from_epsilon, "v": from_v, "score": from_score, "x0": from_x0}


class ExactNetwork:
    """Output of a perfectly trained variance-preserving network for y = alpha x0 + spread noise, x0 ~ N(mean, C).

    It is derived from the density of y, independently of the process that the code uses.
    """

    def __init__(self, predicts: str, mean: Tensor, covariance: Tensor, alpha_bars: Tensor):
        self.predicts, self.mean, self.covariance, self.alpha_bars = predicts, mean, covariance, alpha_bars

    def __call__(self, y: Tensor, t: Tensor) -> Tensor:
        return torch.stack([self._of_one(row, self.alpha_bars[step]) for row, step in zip(y, t, strict=True)])

    def _of_one(self, y: Tensor, alpha_bar: Tensor) -> Tensor:
        alpha, spread = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        density = alpha_bar * self.covariance + spread**2 * torch.eye(len(y), dtype=y.dtype)
        whitened = torch.linalg.solve(density, y - alpha * self.mean)
        noise, clean = spread * whitened, self.mean + alpha * self.covariance @ whitened
        answers = {"epsilon": noise, "x0": clean, "v": alpha * noise - spread * clean, "score": -whitened}
        return answers[self.predicts]


@pytest.mark.parametrize("alpha_bars", [linear_alpha_bars(200), cosine_alpha_bars(200)], ids=["linear", "cosine"])
@pytest.mark.parametrize("predicts", ADAPTERS)
def test_variance_preserving_networks_are_the_exact_denoiser(
    predicts: str, alpha_bars: Tensor, mean: Tensor, covariance: Tensor, generator: torch.Generator
) -> None:
    denoiser = ADAPTERS[predicts](ExactNetwork(predicts, mean, covariance, alpha_bars), alpha_bars)
    sigma = sigmas_of(alpha_bars)[torch.tensor([0, 20, 90, 150, 180])].unsqueeze(1)
    x = mean + (1 + sigma) * torch.randn(5, 3, generator=generator, dtype=torch.float64)
    assert torch.allclose(denoiser(x, sigma), GaussianDenoiser(mean, covariance)(x, sigma))


@pytest.mark.parametrize("predicts", ADAPTERS)
def test_variance_exploding_networks_are_the_exact_denoiser(
    predicts: str, mean: Tensor, covariance: Tensor, generator: torch.Generator
) -> None:
    def network(x: Tensor, sigma: Tensor) -> Tensor:
        rows = []
        for row, level in zip(x, sigma.flatten(), strict=True):
            whitened = torch.linalg.solve(covariance + level**2 * torch.eye(3, dtype=x.dtype), row - mean)
            noise, clean = level * whitened, mean + covariance @ whitened
            v = (noise - level * clean) / (1 + level**2).sqrt()
            rows.append({"epsilon": noise, "x0": clean, "v": v, "score": -whitened}[predicts])
        return torch.stack(rows)

    sigma = torch.tensor([[0.01], [0.5], [3.0], [60.0]], dtype=torch.float64)
    x = mean + (1 + sigma) * torch.randn(4, 3, generator=generator, dtype=torch.float64)
    assert torch.allclose(ADAPTERS[predicts](network)(x, sigma), GaussianDenoiser(mean, covariance)(x, sigma))


@pytest.mark.parametrize("predicts", ADAPTERS)
def test_a_sampler_walks_an_adapted_network_as_the_exact_denoiser(
    predicts: str, mean: Tensor, covariance: Tensor
) -> None:
    alpha_bars = linear_alpha_bars(200)
    adapted = ADAPTERS[predicts](ExactNetwork(predicts, mean, covariance, alpha_bars), alpha_bars)
    sigmas = sampling_steps(sigmas_of(alpha_bars), 2.0, 12)
    x = mean + torch.tensor([[2.0, -1.0, 3.0], [0.0, 0.5, -2.0]], dtype=torch.float64)
    assert torch.allclose(sample_ddim(adapted, x, sigmas), sample_ddim(GaussianDenoiser(mean, covariance), x, sigmas))


def test_levels_between_two_timesteps_go_to_the_nearer() -> None:
    alpha_bars = linear_alpha_bars(100)
    levels = sigmas_of(alpha_bars)
    asked = torch.stack([levels[40] * 1.001, levels[41] * 0.999, levels[0] / 10, levels[-1] * 10]).unsqueeze(1)
    assert nearest_timesteps(asked, alpha_bars).tolist() == [40, 41, 0, 99]


def test_windows_are_adapted_as_vectors_are(mean: Tensor, covariance: Tensor) -> None:
    alpha_bars = linear_alpha_bars(50)
    network = ExactNetwork("epsilon", mean, covariance, alpha_bars)
    x, sigma = torch.ones(2, 3, 1, dtype=torch.float64), sigmas_of(alpha_bars)[30].expand(2, 1, 1)
    as_windows = from_epsilon(lambda y, t: network(y.flatten(1), t).reshape(y.shape), alpha_bars)(x, sigma)
    assert torch.allclose(as_windows.flatten(1), from_epsilon(network, alpha_bars)(x.flatten(1), sigma[:, 0]))
