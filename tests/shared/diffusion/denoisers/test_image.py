"""The denoiser of images takes any size."""

import pytest
import torch

from shared.diffusion.denoisers import ImageDenoiser, initialise


def make(levels: int, generator: torch.Generator) -> ImageDenoiser:
    made = ImageDenoiser(3, width=8, levels=levels)
    initialise(made, generator)
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("size", [(8, 8), (9, 13), (7, 7), (3, 20), (1, 1)])
def test_images_may_have_any_size(size: tuple[int, int], levels: int, generator: torch.Generator) -> None:
    x = torch.randn(2, 3, *size, generator=generator)
    denoised = make(levels, generator)(x, torch.ones(2, 1))
    assert denoised.shape == x.shape
    assert torch.isfinite(denoised).all()


def test_each_pixel_depends_on_the_complete_image(generator: torch.Generator) -> None:
    x = torch.randn(1, 3, 64, 64, generator=generator)  # wider than the convolutions reach
    changed = x.clone()
    changed[0, :, :8, :8] += 3.0
    denoiser = make(2, generator)
    difference = denoiser(changed, torch.ones(1, 1)) - denoiser(x, torch.ones(1, 1))
    assert (difference[0, :, -8:, -8:].abs() > 1e-7).any()


def test_padding_repeats_the_edge(generator: torch.Generator) -> None:
    denoiser = make(3, generator)
    x = torch.randn(2, 3, 10, 11, generator=generator)
    padded = torch.nn.functional.pad(x, (0, 1, 0, 2), mode="replicate")
    sigma = torch.ones(2, 1)
    assert torch.allclose(denoiser(x, sigma), denoiser(padded, sigma)[:, :, :10, :11], atol=1e-6)
