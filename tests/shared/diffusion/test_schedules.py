"""Noise schedules of the papers."""

import pytest
import torch

from shared.diffusion.schedules import (
    diffuse,
    edm_sigmas,
    geometric_sigmas,
    linear_alpha_bars,
    log_uniform_sigmas,
    per_item,
)


def test_linear_schedule_ends_where_ddpm_does() -> None:
    # DDPM, section 4: at T = 1000 the remaining share of the signal is about 4e-5.
    alpha_bars = linear_alpha_bars(1000)
    assert alpha_bars[0] == pytest.approx(1 - 1e-4)
    assert alpha_bars[-1] == pytest.approx(4.04e-5, rel=0.01)


@pytest.mark.parametrize("sigmas", [edm_sigmas(50), geometric_sigmas(50, 0.1, 9.0)])
def test_noise_levels_ascend_and_are_finite(sigmas: torch.Tensor) -> None:
    assert torch.isfinite(sigmas).all()
    assert (sigmas[1:] > sigmas[:-1]).all()
    assert sigmas[0] > 0


def test_edm_levels_are_those_of_the_paper() -> None:
    sigmas = edm_sigmas(18)
    assert sigmas[0] == pytest.approx(0.002)
    assert sigmas[-1] == pytest.approx(80.0)
    roots = sigmas ** (1 / 7)
    assert torch.allclose(roots.diff(), roots.diff()[0].expand(17))


def test_variance_preserving_and_exploding_are_one_process(generator: torch.Generator) -> None:
    alpha_bar = linear_alpha_bars(100)[60]
    x0, noise = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    preserving = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise
    assert torch.allclose(preserving / alpha_bar.sqrt(), diffuse(x0, ((1 - alpha_bar) / alpha_bar).sqrt(), noise))


def test_log_uniform_levels_fill_each_decade_alike(generator: torch.Generator) -> None:
    sigmas = log_uniform_sigmas(20_000, (0.01, 10.0), generator=generator)
    assert sigmas.min() >= 0.01
    assert sigmas.max() <= 10.0
    assert (sigmas < 0.1).float().mean() == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize("shape", [(4, 3), (4, 6, 2), (4, 2, 5, 5)])
def test_each_sample_is_noised_to_its_own_level(shape: tuple[int, ...], generator: torch.Generator) -> None:
    x0, noise = torch.randn(2, *shape, generator=generator)
    sigma = torch.linspace(0.1, 2.0, 4)
    expected = torch.stack([x0[item] + sigma[item] * noise[item] for item in range(4)])
    for levels in (sigma, sigma.unsqueeze(1), per_item(sigma, x0)):
        assert torch.equal(diffuse(x0, levels, noise), expected)
    assert torch.equal(diffuse(x0, sigma[2], noise), diffuse(x0, float(sigma[2]), noise))
