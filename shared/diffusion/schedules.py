"""Noise schedules as data, and the forward process.

A schedule is a tensor of noise levels sigma, ascending, one a timestep. In this project x = x0 + sigma * noise
(variance exploding). The variance-preserving processes of DDPM, x = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise,
are the same process after a division by sqrt(alpha_bar), with sigma = sqrt((1 - alpha_bar) / alpha_bar) (Karras et
al., "Elucidating the Design Space of Diffusion-Based Generative Models", here "EDM", NeurIPS 2022, table 1): every
sampler and every denoiser here serves both.

| here      | papers                                                     |
|-----------|------------------------------------------------------------|
| alpha_bar | share of the signal's variance left at a timestep          |
| beta      | variance of the noise added in one timestep                |
| sigma     | noise level relative to the signal, ascending              |
| rho       | EDM's exponent: the larger, the more steps at small sigma  |
"""

import math

import torch
from torch import Tensor


def linear_alpha_bars(timesteps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    """alpha_bar (timesteps,) float64 of the linear beta schedule (Ho et al., DDPM, NeurIPS 2020, section 4)."""
    betas = torch.linspace(beta_start, beta_end, timesteps, dtype=torch.float64)
    return torch.cumprod(1.0 - betas, dim=0)


def edm_sigmas(timesteps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """Noise levels (timesteps,) float64, ascending, evenly spaced in sigma^(1/rho) (EDM, eq. 5)."""
    roots = torch.linspace(sigma_min ** (1 / rho), sigma_max ** (1 / rho), timesteps, dtype=torch.float64)
    return roots**rho


def geometric_sigmas(timesteps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Noise levels (timesteps,) float64, ascending, each the same multiple of the last (Song & Ermon, NeurIPS 2019)."""
    return torch.linspace(math.log(sigma_min), math.log(sigma_max), timesteps, dtype=torch.float64).exp()


def log_uniform_sigmas(count: int, sigma_range: tuple[float, float], *, generator: torch.Generator) -> Tensor:
    """Noise levels (count,) float32, drawn so that every decade is as likely: for training."""
    low, high = (math.log(sigma) for sigma in sigma_range)
    return torch.exp(low + (high - low) * torch.rand(count, generator=generator))


def per_item(sigma: Tensor, x: Tensor) -> Tensor:
    """Noise levels, one an item or one for all, shaped to broadcast against the items of `x` (batch, ...).

    From `sigma` (), (batch,), (batch, 1) or (batch, 1, ..., 1) to (batch, 1, ..., 1), with as many axes as `x`.
    """
    return sigma.reshape(-1, *[1] * (x.ndim - 1))


def diffuse(x0: Tensor, sigma: Tensor | float, noise: Tensor) -> Tensor:
    """The forward process: x0 (batch, ...) after noise of level `sigma`, one an item or one for all.

    `noise`: standard normal, broadcast against `x0`.
    """
    level = per_item(sigma, x0) if isinstance(sigma, Tensor) else sigma
    return x0 + level * noise
