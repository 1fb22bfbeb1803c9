"""Samplers: moments of the data, and the order of each solver."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from shared.diffusion.samplers import (
    NoiseSource,
    Sampler,
    sample_ddim,
    sample_ddpm,
    sample_dpm_solver,
)
from shared.diffusion.schedules import diffuse, edm_sigmas, geometric_sigmas
from tests.shared.diffusion.gaussian import GaussianDenoiser

DRAWS = 10_000
SAMPLERS: dict[str, Sampler] = {
    "ddpm": sample_ddpm,
    "ddim": sample_ddim,
    "dpm_solver": sample_dpm_solver,
}


def noise_source(shape: tuple[int, ...], seed: int = 1) -> NoiseSource:
    generator = torch.Generator().manual_seed(seed)
    return lambda step: torch.randn(shape, generator=generator, dtype=torch.float64)


def repeated_noise(x: Tensor) -> NoiseSource:
    """Return a source that draws the same noise (1, ...) for every item of `x`, for any size of the batch."""

    def draw(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        return torch.randn((1, *x.shape[1:]), generator=generator, dtype=x.dtype)

    return draw


def levels(steps: int, sigma_max: float) -> Tensor:
    """Return noise levels (steps + 1,) from `sigma_max` down to 0."""
    return torch.cat([edm_sigmas(steps, 0.002, sigma_max).flip(0), torch.zeros(1)])


def probability_flow(x: Tensor, start: Tensor, end: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Return x moved by the exact flow from level `start` to `end`, which rescales each principal axis."""
    variances, axes = torch.linalg.eigh(covariance)
    scale = ((variances + end**2) / (variances + start**2)).sqrt()
    return mean + ((x - mean) @ axes * scale) @ axes.T


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_samples_have_the_mean_and_covariance_of_the_data(
    sampler: Sampler, mean: Tensor, covariance: Tensor, generator: torch.Generator
) -> None:
    sigmas = levels(300, 40.0)
    x = mean + sigmas[0] * torch.randn(DRAWS, 3, generator=generator, dtype=torch.float64)
    found = sampler(GaussianDenoiser(mean, covariance), x, sigmas, noise=noise_source((DRAWS, 3)))
    assert torch.allclose(found.mean(0), mean, atol=0.05)
    assert torch.allclose(torch.cov(found.T), covariance, atol=0.07)


@pytest.mark.parametrize(("sampler", "order"), [(sample_ddim, 1), (sample_dpm_solver, 2)], ids=["ddim", "2m"])
@pytest.mark.parametrize("spacing", [edm_sigmas, geometric_sigmas])
def test_halving_the_steps_shows_the_order_of_a_solver(
    sampler: Sampler, order: int, spacing: Callable[[int, float, float], Tensor], mean: Tensor, covariance: Tensor
) -> None:
    x = mean + torch.tensor([[13.0, -4.0, 9.0]], dtype=torch.float64)
    errors = []
    for steps in (32, 64, 128):
        sigmas = spacing(steps + 1, 0.1, 10.0).flip(0)
        exact = probability_flow(x, sigmas[0], sigmas[-1], mean, covariance)
        errors.append(float((sampler(GaussianDenoiser(mean, covariance), x, sigmas) - exact).norm()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.35)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize(("sampler", "tolerance"), [(sample_ddim, 0.1), (sample_dpm_solver, 0.02)])
def test_deterministic_samplers_follow_the_probability_flow_to_the_clean_sample(
    sampler: Sampler, tolerance: float, mean: Tensor, covariance: Tensor
) -> None:
    sigmas = levels(60, 5.0)
    x = mean + torch.tensor([[3.0, -4.0, 5.0]], dtype=torch.float64)
    exact = probability_flow(x, sigmas[0], sigmas[-1], mean, covariance)
    assert (sampler(GaussianDenoiser(mean, covariance), x, sigmas) - exact).norm() < tolerance


def test_dpm_solver_errs_less_than_ddim_with_half_the_calls(mean: Tensor, covariance: Tensor) -> None:
    x = mean + torch.tensor([[3.0, -4.0, 5.0]], dtype=torch.float64)
    errors = {}
    for sampler, calls in ((sample_ddim, 20), (sample_dpm_solver, 10)):
        sigmas = torch.cat([edm_sigmas(calls, 0.02, 5.0).flip(0), torch.zeros(1)])
        exact = probability_flow(x, sigmas[0], sigmas[-1], mean, covariance)
        errors[calls] = float((sampler(GaussianDenoiser(mean, covariance), x, sigmas) - exact).norm())
    assert errors[10] < 0.7 * errors[20]


@pytest.mark.parametrize("variance", [0.04, 1.0, 9.0])
def test_ancestral_sampling_brings_the_variance_of_the_data_back(variance: float) -> None:
    # It is linear in the start and in each step's noise: item k of the batch has unit noise at step k - 1 alone, so the
    # variance of a sample is the sum of squares of the outputs, and no draw is needed.
    def found(steps: int) -> float:
        sigmas = torch.cat([edm_sigmas(steps, 0.01, 40.0).flip(0), torch.zeros(1)])
        unit = torch.eye(steps + 1, dtype=torch.float64)
        data = GaussianDenoiser(unit.new_zeros(1), unit.new_full((1, 1), variance))
        gains = sample_ddpm(data, unit[:, :1], sigmas, noise=lambda step: unit[:, step + 1 : step + 2]).squeeze(1)
        return float(gains[0] ** 2 * (variance + sigmas[0] ** 2) + gains[1:].square().sum())

    coarse, fine = abs(found(100) / variance - 1), abs(found(400) / variance - 1)
    assert fine < 0.03
    assert fine < coarse / 3


@pytest.mark.parametrize("shape", [(4, 3, 1), (4, 1, 3), (4, 1, 3, 1)])
@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_windows_and_images_are_sampled_as_vectors_are(
    sampler: Sampler, shape: tuple[int, ...], mean: Tensor, covariance: Tensor, generator: torch.Generator
) -> None:
    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        assert sigma.shape == (4, *[1] * (x.ndim - 1))
        return GaussianDenoiser(mean, covariance)(x, sigma)

    sigmas = levels(5, 2.0)
    x0, noise = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    x = diffuse(x0, sigmas[0], noise)
    expected = sampler(GaussianDenoiser(mean, covariance), x, sigmas, noise=repeated_noise(x))
    images = x.reshape(shape)
    assert torch.allclose(sampler(denoiser, images, sigmas, noise=repeated_noise(images)), expected.reshape(shape))


def test_ancestral_sampling_requires_noise(mean: Tensor, covariance: Tensor) -> None:
    denoiser, x, sigmas = GaussianDenoiser(mean, covariance), mean.unsqueeze(0), torch.tensor([1.0, 0.0])
    with pytest.raises(ValueError, match="noise="):
        sample_ddpm(denoiser, x, sigmas)


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_an_item_does_not_depend_on_its_batch(
    sampler: Sampler, mean: Tensor, covariance: Tensor, generator: torch.Generator
) -> None:
    sigmas = levels(5, 2.0)
    x = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    denoiser = GaussianDenoiser(mean, covariance)
    together = sampler(denoiser, x, sigmas, noise=repeated_noise(x))
    for item in range(6):
        row = x[item : item + 1]
        assert torch.allclose(sampler(denoiser, row, sigmas, noise=repeated_noise(row)), together[item])


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_one_step_to_level_zero_is_the_denoiser(sampler: Sampler, mean: Tensor, covariance: Tensor) -> None:
    denoiser, x, sigmas = GaussianDenoiser(mean, covariance), mean.unsqueeze(0) + 1, torch.tensor([1.5, 0.0])
    assert torch.allclose(sampler(denoiser, x, sigmas, noise=repeated_noise(x)), denoiser(x, sigmas[:1]))
