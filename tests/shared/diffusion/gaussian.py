"""Exact denoiser and time posterior of Gaussian data: references for samplers, losses and trained networks."""

import math

import torch
from torch import Tensor

from shared.diffusion.schedules import per_item


class GaussianDenoiser:
    """Exact denoiser of Gaussian data, the limit of a perfectly trained network.

    With covariance C, D(x, sigma) = mean + C (C + sigma^2 I)^-1 (x - mean). `mean`: (dim,), `covariance`: (dim, dim).
    Windows and images are flattened to vectors in storage order.
    """

    def __init__(self, mean: Tensor, covariance: Tensor):
        self._mean = mean
        self._variances, self._axes = torch.linalg.eigh(covariance)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return E[x0 | x] in closed form, shaped like `x` (batch, ...)."""
        along = self._along_axes(x)
        shrunk = along * (self._variances / (self._variances + per_item(sigma, along) ** 2))
        denoised: Tensor = self._mean + shrunk @ self._axes.T
        return denoised.reshape(x.shape)

    def log_likelihoods(self, x: Tensor, sigmas: Tensor) -> Tensor:
        """Return log p(x | sigma) of the noised data, N(mean, C + sigma^2 I): (batch, levels).

        `x`: (batch, ...), `sigmas`: (levels,).
        """
        variances = self._variances + sigmas.to(x).unsqueeze(1) ** 2  # (levels, dim)
        square_distances: Tensor = self._along_axes(x).square() @ variances.reciprocal().T
        return -0.5 * (square_distances + torch.log(2.0 * math.pi * variances).sum(dim=1))

    def _along_axes(self, x: Tensor) -> Tensor:
        """Return deviations from the mean along the principal axes: (batch, dim)."""
        along: Tensor = (x.flatten(1) - self._mean) @ self._axes
        return along


def time_posterior(data: GaussianDenoiser, x: Tensor, sigmas: Tensor, log_prior: Tensor | None = None) -> Tensor:
    """Return the exact posterior p(sigma | x) over the noise levels `sigmas` (levels,): (batch, levels); rows sum to 1.

    Bayes: p(sigma | x) is proportional to p(x | sigma) p(sigma).
    `log_prior`: (levels,), up to a constant; None means uniform.
    Diffusion time estimation learns this posterior (Livernoche et al., ICLR 2024, section 4): DTE-C by classification,
    DTE-NP from the nearest normal samples.
    """
    log_joint = data.log_likelihoods(x, sigmas) + (0.0 if log_prior is None else log_prior.to(x))
    return torch.softmax(log_joint, dim=1)
