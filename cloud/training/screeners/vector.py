"""Screener of tabular rows and series windows as one torch module, ready to export and quantise."""

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shared.diffusion.time_estimation import TimeEstimationHead

MIN_LIMIT = 6.0  # in graph inputs, which are deviations up to there
SLOPE_BEYOND = 0.1  # slope of the score in the log of the distance from the box: docs/methods/screener.md


class VectorScreener(nn.Module):
    """Graph inputs (batch, dim) float32 of tabular rows or series windows to scores (batch,).

    An INT8 head saturates if activations leave the calibrated range, so it cannot rank inputs farther outside. Beyond
    the box |x_j| <= `limits`_j a term in float is added, which grows with the log of the distance from the box. This is
    the growth of time estimation (see `log_posterior_mean`) times SLOPE_BEYOND, a small factor because the head itself
    grows there until it saturates. The term is 0 within the box.
    """

    output_names = ("score",)
    limits: Tensor

    def __init__(self, head: TimeEstimationHead, limits: Tensor) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("limits", limits)
        self.eval().requires_grad_(False)

    @classmethod
    def within(cls, head: TimeEstimationHead, *inputs: NDArray[Any]) -> Self:
        """Return the screener whose box contains the given graph inputs (n, dim), with limits of at least MIN_LIMIT."""
        widest = np.max([np.abs(part).max(axis=0, initial=MIN_LIMIT) for part in inputs], axis=0)
        return cls(head, torch.from_numpy(widest.astype(np.float32)))

    def forward(self, input: Tensor) -> Tensor:
        """Return scores (batch,) of graph inputs (batch, dim)."""
        scores: Tensor = self.head(input) + SLOPE_BEYOND * self.beyond(input)
        return scores

    def beyond(self, input: Tensor) -> Tensor:
        """Return about the log of the distance (batch,) of graph inputs (batch, dim) from the box, 0 within it."""
        excess = torch.relu(input.abs() - self.limits)
        return 0.5 * torch.log1p(excess.square().sum(dim=1))

    def example(self) -> Tensor:
        """Return two graph inputs, for the export."""
        return torch.zeros(2, self.head.dim)
