"""Contract of all denoisers, and the score that follows from it.

A denoiser is a function D(x, sigma) that returns the expected clean sample E[x0 | x] (Karras et al., "Elucidating the
Design Space of Diffusion-Based Generative Models", here "EDM", NeurIPS 2022, section 2). `x`: (batch, dim) vectors,
(batch, length, channels) windows or (batch, channels, height, width) images and patch grids, a clean sample plus
noise of level `sigma`: (batch, 1) or (batch, 1, ..., 1). Losses and samplers do not depend on the parametrisation of a
network.
"""

from typing import Protocol

from torch import Tensor

from shared.diffusion.schedules import per_item


class Denoiser(Protocol):
    """Function from a noised sample and its noise level to the expected clean sample."""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return E[x0 | x], shaped like `x` (batch, ...), for `sigma` (batch, 1) or (batch, 1, ..., 1)."""
        ...


def score(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Tensor:
    """Return the gradient of the log density of the data noised to level sigma (Tweedie's formula; EDM, eq. 3)."""
    return (denoiser(x, sigma) - x) / per_item(sigma, x) ** 2
