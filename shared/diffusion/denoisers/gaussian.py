"""Normally distributed data, of which everything is known in closed form: the yardstick for all that is learned."""

import math

import torch
from torch import Tensor

from shared.diffusion.schedules import per_item


class GaussianDenoiser:
    """The exact denoiser of normally distributed data: what a perfectly trained network would return.

    With covariance C, D(x, sigma) = mean + C (C + sigma^2 I)^-1 (x - mean). `mean`: (dim,), `covariance`: (dim, dim).
    Windows and images are taken as vectors of as many values, in the order they are stored.
    """

    def __init__(self, mean: Tensor, covariance: Tensor):
        self._mean = mean
        self._variances, self._axes = torch.linalg.eigh(covariance)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x] in closed form, shaped like `x` (batch, ...)."""
        along = self._along_axes(x)
        shrunk = along * (self._variances / (self._variances + per_item(sigma, along) ** 2))
        denoised: Tensor = self._mean + shrunk @ self._axes.T
        return denoised.reshape(x.shape)

    def log_likelihoods(self, x: Tensor, sigmas: Tensor) -> Tensor:
        """log p(x | sigma) of the noised data, N(mean, C + sigma^2 I): (batch, levels).

        `x`: (batch, ...), `sigmas`: (levels,).
        """
        variances = self._variances + sigmas.to(x).unsqueeze(1) ** 2  # (levels, dim)
        square_distances: Tensor = self._along_axes(x).square() @ variances.reciprocal().T
        return -0.5 * (square_distances + torch.log(2.0 * math.pi * variances).sum(dim=1))

    def _along_axes(self, x: Tensor) -> Tensor:
        """Deviations from the mean along the principal axes: (batch, dim)."""
        along: Tensor = (x.flatten(1) - self._mean) @ self._axes
        return along


def time_posterior(data: GaussianDenoiser, x: Tensor, sigmas: Tensor, log_prior: Tensor | None = None) -> Tensor:
    """The exact posterior p(sigma | x) over the noise levels `sigmas` (levels,): (batch, levels), each row sums to 1.

    Bayes: p(sigma | x) is proportional to p(x | sigma) p(sigma). `log_prior`: (levels,), up to a constant; None means
    that all levels are as likely. It is what diffusion time estimation learns (Livernoche et al., ICLR 2024,
    section 4): DTE-C by classification, DTE-NP from the nearest normal samples.
    """
    log_joint = data.log_likelihoods(x, sigmas) + (0.0 if log_prior is None else log_prior.to(x))
    return torch.softmax(log_joint, dim=1)
