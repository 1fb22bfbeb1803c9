"""A denoiser that is told something: channels beside the noised values that are never noised themselves."""

import torch
from torch import Tensor

from cloud.methods.restoration import mean_over
from shared.diffusion.denoisers import PreconditionedDenoiser
from shared.diffusion.schedules import per_item


class ConditionedDenoiser:
    """The denoiser of values (batch, ...) given a `condition` of more channels, by a network that takes both.

    The network's preconditioning shrinks its input the more, the higher the noise. The condition carries no noise, so
    it is enlarged by as much before: the network sees it as it is at every level.
    """

    def __init__(self, network: PreconditionedDenoiser, condition: Tensor, channel_axis: int = 1):
        self._network, self._condition, self._axis = network, condition, channel_axis

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x, condition]: shaped like `x` (batch, ...), at levels `sigma` (batch, 1, ...)."""
        enlarged = self._condition * (per_item(sigma, x) ** 2 + self._network.sigma_data**2).sqrt()
        denoised: Tensor = self._network(torch.cat([x, enlarged], dim=self._axis), sigma)
        return denoised.narrow(self._axis, 0, x.shape[self._axis])

    def loss(self, x: Tensor, sigma: Tensor, x0: Tensor, counted: Tensor | None = None) -> Tensor:
        """EDM's weighted square error (table 1) of denoising `x` to `x0`, over the values' own channels.

        `counted`: bool of their shape, which entries are targets; None: all.
        """
        squares = self._network.loss_weight(per_item(sigma, x)) * (self(x, sigma) - x0).square()
        return mean_over(squares, counted)
