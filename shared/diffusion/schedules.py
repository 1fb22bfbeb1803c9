"""Noise schedules as data, and the forward process.

A schedule is an ascending tensor of noise levels sigma, one per timestep. In this project x = x0 + sigma * noise
(variance exploding). The variance-preserving processes of DDPM, x = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise,
are the same process after a division by sqrt(alpha_bar), with sigma = sqrt((1 - alpha_bar) / alpha_bar) (Karras et
al., "Elucidating the Design Space of Diffusion-Based Generative Models", here "EDM", NeurIPS 2022, table 1).
Every sampler and denoiser here serves both.

| here      | papers                                                     |
|-----------|------------------------------------------------------------|
| alpha_bar | share of the signal's variance left at a timestep          |
| beta      | variance of the noise added in one timestep                |
| sigma     | noise level relative to the signal, ascending              |
| rho       | EDM's exponent: larger means more steps at small sigma     |
"""

import math

import torch
from torch import Tensor


def linear_alpha_bars(timesteps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    """Return alpha_bar (timesteps,) float64 of the linear beta schedule (Ho et al., DDPM, NeurIPS 2020, section 4)."""
    betas = torch.linspace(beta_start, beta_end, timesteps, dtype=torch.float64)
    return torch.cumprod(1.0 - betas, dim=0)


def edm_sigmas(timesteps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """Return noise levels (timesteps,) float64, ascending, evenly spaced in sigma^(1/rho) (EDM, eq. 5)."""
    roots = torch.linspace(sigma_min ** (1 / rho), sigma_max ** (1 / rho), timesteps, dtype=torch.float64)
    return roots**rho


def geometric_sigmas(timesteps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Return noise levels (timesteps,) float64, ascending, in a geometric sequence (Song & Ermon, NeurIPS 2019)."""
    return torch.linspace(math.log(sigma_min), math.log(sigma_max), timesteps, dtype=torch.float64).exp()


def log_uniform_sigmas(count: int, sigma_range: tuple[float, float], *, generator: torch.Generator) -> Tensor:
    """Return log-uniform random noise levels (count,) float32 for training."""
    low, high = (math.log(sigma) for sigma in sigma_range)
    return torch.exp(low + (high - low) * torch.rand(count, generator=generator))


def per_item(sigma: Tensor, x: Tensor) -> Tensor:
    """Return noise levels in a shape that broadcasts against `x` (batch, ...).

    `sigma`: (), (batch,), (batch, 1) or (batch, 1, ..., 1). The result is (batch, 1, ..., 1), or (1, ..., 1) for one
    level, with as many axes as `x`.
    """
    return sigma.reshape(-1, *[1] * (x.ndim - 1))


def diffuse(x0: Tensor, sigma: Tensor | float, noise: Tensor) -> Tensor:
    """Return the forward process x0 + sigma * noise of `x0` (batch, ...).

    `sigma`: one level per item, or one for all. `noise`: standard normal, broadcast against `x0`.
    """
    level = per_item(sigma, x0) if isinstance(sigma, Tensor) else sigma
    return x0 + level * noise
