"""Conditional denoiser: channels without noise beside the noised values."""

import torch
from torch import Tensor

from cloud.methods.restoration import mean_over
from shared.diffusion.denoisers import PreconditionedDenoiser
from shared.diffusion.schedules import per_item


class ConditionedDenoiser:
    """Denoiser of values (batch, ...) given a `condition` of more channels; its network takes both.

    The network's preconditioning scales its input down at high noise. The condition has no noise, so it is scaled up by
    the same factor first: the network gets it unchanged at every level.
    """

    def __init__(self, network: PreconditionedDenoiser, condition: Tensor, channel_axis: int = 1):
        self._network, self._condition, self._axis = network, condition, channel_axis

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return E[x0 | x, condition], shaped like `x` (batch, ...), at levels `sigma` (batch, 1, ...)."""
        enlarged = self._condition * (per_item(sigma, x) ** 2 + self._network.sigma_data**2).sqrt()
        denoised: Tensor = self._network(torch.cat([x, enlarged], dim=self._axis), sigma)
        return denoised.narrow(self._axis, 0, x.shape[self._axis])

    def loss(self, x: Tensor, sigma: Tensor, x0: Tensor, counted: Tensor | None = None) -> Tensor:
        """Return EDM's weighted square error (table 1) of denoising `x` to `x0`, without the condition's channels.

        `counted`: bool in the shape of `x0`, true for targets; None: all.
        """
        squares = self._network.loss_weight(per_item(sigma, x)) * (self(x, sigma) - x0).square()
        return mean_over(squares, counted)
