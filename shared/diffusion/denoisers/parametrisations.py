"""Denoisers out of networks that predict something else: the noise, v, the score or the clean sample.

Networks are trained in one of two coordinate systems; each adapter serves both:

* variance exploding (`alpha_bars=None`): network(x, sigma), x = x0 + sigma noise, `sigma` (batch, 1, ..., 1);
* variance preserving (`alpha_bars` (timesteps,), descending): network(y, t), y = alpha x0 + sqrt(1 - alpha^2) noise
  with alpha = sqrt(alpha_bar), `t`: (batch,) int64, the timestep whose level is nearest. That is exact on the
  schedule's own levels, which are those that `schedules.sampling_steps` picks from `schedules.sigmas_of(alpha_bars)`.

| network predicts | denoiser D(x, sigma), with alpha = 1 / sqrt(1 + sigma^2) | source                                 |
|------------------|----------------------------------------------------------|----------------------------------------|
| noise epsilon    | x - sigma epsilon                                        | Ho et al., NeurIPS 2020, eq. 15        |
| v                | alpha^2 x - alpha sigma v                                | Salimans & Ho, ICLR 2022, appendix D   |
| score            | x + sigma^2 score; preserving: x + alpha sigma^2 score   | Song et al., ICLR 2021; EDM, eq. 3     |
| clean sample     | as it is                                                 | Salimans & Ho, ICLR 2022, section 4    |
"""

from collections.abc import Callable

import torch
from torch import Tensor

from shared.diffusion.denoisers.contract import Denoiser
from shared.diffusion.schedules import per_item, sigmas_of

Network = Callable[[Tensor, Tensor], Tensor]


def from_epsilon(network: Network, alpha_bars: Tensor | None = None) -> Denoiser:
    """The denoiser of a network that predicts the noise."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return x - per_item(sigma, x) * _ask(network, x, sigma, alpha_bars)

    return denoise


def from_v(network: Network, alpha_bars: Tensor | None = None) -> Denoiser:
    """The denoiser of a network that predicts v."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        alpha = _alpha(sigma, x)
        return alpha**2 * x - alpha * per_item(sigma, x) * _ask(network, x, sigma, alpha_bars)

    return denoise


def from_score(network: Network, alpha_bars: Tensor | None = None) -> Denoiser:
    """The denoiser of a network that predicts the score, in the coordinates that it sees."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        stretch = 1.0 if alpha_bars is None else _alpha(sigma, x)  # dy/dx
        return x + stretch * per_item(sigma, x) ** 2 * _ask(network, x, sigma, alpha_bars)

    return denoise


def from_x0(network: Network, alpha_bars: Tensor | None = None) -> Denoiser:
    """The denoiser of a network that predicts the clean sample."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return _ask(network, x, sigma, alpha_bars)

    return denoise


def nearest_timesteps(sigma: Tensor, alpha_bars: Tensor) -> Tensor:
    """The timesteps (batch,) int64, from 0, of a schedule whose log noise levels are nearest those of `sigma`."""
    levels = sigmas_of(alpha_bars).to(sigma.device, torch.float64).log()
    asked = sigma.reshape(-1, 1).double().log()
    return (asked - levels).abs().argmin(dim=1)


def _ask(network: Network, x: Tensor, sigma: Tensor, alpha_bars: Tensor | None) -> Tensor:
    """The network's own answer, asked in its own coordinates."""
    if alpha_bars is None:
        return network(x, per_item(sigma, x))
    return network(_alpha(sigma, x) * x, nearest_timesteps(sigma, alpha_bars).expand(len(x)))


def _alpha(sigma: Tensor, x: Tensor) -> Tensor:
    """The signal's weight in the variance-preserving process: (batch, 1, ..., 1)."""
    return (1.0 + per_item(sigma, x) ** 2).rsqrt()
