"""Samplers: functions that take a noised sample back to a clean one, all with one signature.

    sample(denoiser, x, sigmas, *, noise) -> Tensor

`x`: (batch, ...) vectors, windows or images at noise level sigmas[0]; `sigmas`: (steps + 1,), descending, usually to
0; `noise(step)`: standard normal (batch, ...) or broadcast to it; only samplers that add noise use it. Noise is an
argument, so that the result of an item does not depend on its batch. All samplers work in the process
x = x0 + sigma * noise, which does not scale the signal (alpha = 1).

| sampler             | adds noise | order | denoiser calls | source                                   |
|---------------------|------------|-------|----------------|------------------------------------------|
| `sample_ddpm`       | yes        | -     | steps          | Ho et al., NeurIPS 2020                  |
| `sample_ddim`       | no         | 1     | steps          | Song, Meng & Ermon, ICLR 2021            |
| `sample_dpm_solver` | no         | 2     | steps          | Lu et al., "DPM-Solver++", 2022          |
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

from torch import Tensor

from shared.diffusion.denoisers import Denoiser
from shared.diffusion.schedules import per_item

NoiseSource = Callable[[int], Tensor]


class Sampler(Protocol):
    """Signature of all samplers."""

    def __call__(self, denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource | None = None) -> Tensor:
        """Return the clean sample, shaped like `x` (batch, ...)."""
        ...


def sample_ddim(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource | None = None) -> Tensor:
    """Sample by deterministic DDIM (Song, Meng & Ermon, ICLR 2021, eq. 12 with sigma_t = 0); `noise` is not used."""
    for current, following in _pairs(x, sigmas):
        denoised = denoiser(x, _column(current, x))
        direction = (x - denoised) / current
        x = denoised + following * direction
    return x


def sample_ddpm(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource | None = None) -> Tensor:
    """Sample by DDPM's ancestral sampling (Ho, Jain & Abbeel, NeurIPS 2020, algorithm 2, posterior variance of eq. 7).

    Raises ValueError without `noise`.
    """
    if noise is None:
        raise ValueError("Ancestral sampling adds noise: pass noise=.")
    for step, (current, following) in enumerate(_pairs(x, sigmas)):
        denoised = denoiser(x, _column(current, x))
        # q(x_next | x, x0) is normal, with its mean between x0 and x.
        share = (following / current) ** 2
        x = denoised + share * (x - denoised)
        if following > 0:
            x = x + following * (1.0 - share).sqrt() * noise(step)
    return x


def sample_dpm_solver(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource | None = None) -> Tensor:
    """Sample by DPM-Solver++ 2M (Lu et al., arXiv 2211.01095, algorithm 2), deterministic; `noise` is not used.

    The solver steps in the log signal-to-noise ratio lambda = log(alpha / sigma) = -log sigma. Its second order comes
    from the previous step, so a step costs one call of the denoiser. The first step, and a last step to level 0, where
    lambda is infinite, are DDIM steps.
    """
    previous: tuple[Tensor, Tensor] | None = None  # denoised sample of the last step, and its length in lambda
    for current, following in _pairs(x, sigmas):
        # 1. Denoise, and extrapolate half a step along the line through the previous denoised sample.
        denoised = denoiser(x, _column(current, x))
        length = (current / following).log()  # h: infinite for a step to level 0
        target = denoised
        if previous is not None and following > 0:
            earlier, earlier_length = previous
            target = denoised + (denoised - earlier) * length / (2.0 * earlier_length)
        # 2. Step: exp(-h) = following / current.
        x = target + (following / current) * (x - target)
        previous = (denoised, length)
    return x


def _pairs(x: Tensor, sigmas: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return pairs of consecutive levels, as scalars on the device and in the precision of `x`."""
    levels = sigmas.to(device=x.device, dtype=x.dtype)
    return list(pairwise(levels))


def _column(sigma: Tensor, x: Tensor) -> Tensor:
    """Return the level once for each item: (batch, 1, ..., 1)."""
    return per_item(sigma.expand(len(x)), x)


__all__ = ["NoiseSource", "Sampler", "sample_ddim", "sample_ddpm", "sample_dpm_solver"]
