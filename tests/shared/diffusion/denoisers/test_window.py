"""The denoiser of windows takes any length."""

import pytest
import torch

from shared.diffusion.denoisers import WindowDenoiser, initialise


@pytest.fixture
def denoiser(generator: torch.Generator) -> WindowDenoiser:
    made = WindowDenoiser(2, width=8, blocks=3)
    initialise(made, generator)
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("length", [1, 2, 7, 100])
def test_windows_may_have_any_length(denoiser: WindowDenoiser, length: int, generator: torch.Generator) -> None:
    x = torch.randn(3, length, 2, generator=generator)
    denoised = denoiser(x, torch.ones(3, 1))
    assert denoised.shape == x.shape
    assert torch.isfinite(denoised).all()


def test_a_time_point_depends_on_its_neighbourhood_only(denoiser: WindowDenoiser, generator: torch.Generator) -> None:
    x = torch.randn(1, 60, 2, generator=generator)
    changed = x.clone()
    changed[0, 30] += 5.0
    moved = (denoiser(changed, torch.ones(1, 1)) - denoiser(x, torch.ones(1, 1))).abs().amax(dim=2)[0] > 1e-6
    reach = 2**3  # 7 by the blocks, 1 by the first layer
    assert moved[30 - reach : 30 + reach + 1].all()
    assert not moved[: 30 - reach].any()
    assert not moved[30 + reach + 1 :].any()
