"""Samplers: free functions of one signature, from a noised sample back to a clean one.

    sample(denoiser, x, sigmas, *, noise) -> Tensor

`x`: (batch, ...) vectors, windows or images at level sigmas[0]; `sigmas`: (steps + 1,), descending, as a rule to 0
(see `schedules.sampling_steps`); `noise(step)`: standard normal (batch, ...) or broadcast to it, for samplers that add
noise (see `noise.seeded_noise`). The noise is an argument, so an item's result need not depend on the others of its
batch. All work in the process x = x0 + sigma * noise, whose signal is never scaled (alpha = 1).

| sampler             | adds noise | order | denoiser calls | source                                   |
|---------------------|------------|-------|----------------|------------------------------------------|
| `sample_ddpm`       | yes        | -     | steps          | Ho et al., NeurIPS 2020                  |
| `sample_ddim`       | eta > 0    | 1     | steps          | Song, Meng & Ermon, ICLR 2021            |
| `sample_heun`       | no         | 2     | 2 steps - 1    | Karras et al., NeurIPS 2022              |
| `sample_dpm_solver` | no         | 2     | steps          | Lu et al., "DPM-Solver++", 2022          |
"""

from itertools import pairwise
from typing import Protocol

from torch import Tensor

from shared.diffusion.denoisers import Denoiser
from shared.diffusion.noise import NoiseSource
from shared.diffusion.schedules import per_item


class Sampler(Protocol):
    """The signature all samplers share."""

    def __call__(self, denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource | None = None) -> Tensor:
        """The clean sample, shaped like `x` (batch, ...)."""
        ...


def sample_ddim(
    denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource | None = None, eta: float = 0.0
) -> Tensor:
    """DDIM (Song, Meng & Ermon, ICLR 2021, eq. 12 and 16). `eta` 0 is deterministic, 1 is DDPM."""
    if eta > 0 and noise is None:
        raise ValueError("DDIM with eta > 0 adds noise: pass noise=.")
    for step, (current, following) in enumerate(_pairs(x, sigmas)):
        # 1. What the clean sample looks like from here, and the direction of the noise still in x.
        denoised = denoiser(x, _column(current, x))
        direction = (x - denoised) / current
        # 2. Split the next level's noise into a fresh part and a kept part.
        fresh = eta * following * (1.0 - (following / current) ** 2).sqrt()
        kept = (following**2 - fresh**2).clamp(min=0.0).sqrt()
        # 3. Step.
        x = denoised + kept * direction
        if noise is not None and fresh > 0:
            x = x + fresh * noise(step)
    return x


def sample_ddpm(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource | None = None) -> Tensor:
    """DDPM's ancestral sampling (Ho, Jain & Abbeel, NeurIPS 2020, algorithm 2, posterior variance of eq. 7)."""
    if noise is None:
        raise ValueError("Ancestral sampling adds noise: pass noise=.")
    for step, (current, following) in enumerate(_pairs(x, sigmas)):
        denoised = denoiser(x, _column(current, x))
        # q(x_next | x, x0) is normal: its mean lies between x0 and x, its variance is the rest.
        share = (following / current) ** 2
        x = denoised + share * (x - denoised)
        if following > 0:
            x = x + following * (1.0 - share).sqrt() * noise(step)
    return x


def sample_heun(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource | None = None) -> Tensor:
    """EDM's deterministic second-order sampler (Karras et al., NeurIPS 2022, algorithm 1); `noise` is not used."""
    for current, following in _pairs(x, sigmas):
        slope = (x - denoiser(x, _column(current, x))) / current
        ahead = x + (following - current) * slope
        if following > 0:  # the slope is undefined at level 0: the last step is Euler's
            slope_ahead = (ahead - denoiser(ahead, _column(following, ahead))) / following
            ahead = x + (following - current) * (slope + slope_ahead) / 2
        x = ahead
    return x


def sample_dpm_solver(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseSource | None = None) -> Tensor:
    """DPM-Solver++ 2M (Lu et al., arXiv 2211.01095, algorithm 2), deterministic; `noise` is not used.

    It solves in the log signal-to-noise ratio lambda = log(alpha / sigma) = -log sigma, and gets its second order from
    the step before, so a step costs one call of the denoiser. The first step, and a last one to level 0, where lambda
    ends, are DDIM's.
    """
    before: tuple[Tensor, Tensor] | None = None  # what the last step saw, and its length in lambda
    for current, following in _pairs(x, sigmas):
        # 1. The clean sample as it looks from here; on its line through the last one, half a step further on.
        denoised = denoiser(x, _column(current, x))
        length = (current / following).log()  # h: infinite for a step to level 0
        target = denoised
        if before is not None and following > 0:
            earlier, earlier_length = before
            target = denoised + (denoised - earlier) * length / (2.0 * earlier_length)
        # 2. Step: exp(-h) = following / current.
        x = target + (following / current) * (x - target)
        before = (denoised, length)
    return x


def _pairs(x: Tensor, sigmas: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Neighbouring levels, as scalars on the device and in the precision of `x`."""
    levels = sigmas.to(device=x.device, dtype=x.dtype)
    return list(pairwise(levels))


def _column(sigma: Tensor, x: Tensor) -> Tensor:
    """One level for each item: (batch, 1, ..., 1)."""
    return per_item(sigma.expand(len(x)), x)


__all__ = ["NoiseSource", "Sampler", "sample_ddim", "sample_ddpm", "sample_dpm_solver", "sample_heun"]
