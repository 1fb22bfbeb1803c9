"""Screener of tabular rows and series windows as one torch module, for export and quantisation."""

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shared.diffusion.time_estimation import TimeEstimationHead

LEAST_LIMIT = 6.0  # of graph inputs, about 8 deviations before compression
SLOPE_BEYOND = 0.1  # of scores in the log of the distance from the box: docs/methods/screener.md


class VectorScreener(nn.Module):
    """Graph inputs (batch, dim) float32 of tabular rows or series windows to scores (batch,).

    In eight bits a head saturates where its activations leave the range of the inputs that set it, and whatever lies
    farther out looks alike. So beyond the box |x_j| <= `limits`_j, and in float, the score grows with the log of the
    distance from the box, as time estimation's does (see `log_posterior_mean`), SLOPE_BEYOND times as fast: a head goes
    on growing there by itself as long as it can. Nothing is added within the box.
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
        """The screener whose box holds the graph inputs (n, dim) given, and LEAST_LIMIT."""
        widest = np.max([np.abs(part).max(axis=0, initial=LEAST_LIMIT) for part in inputs], axis=0)
        return cls(head, torch.from_numpy(widest.astype(np.float32)))

    def forward(self, input: Tensor) -> Tensor:
        """Scores (batch,) of graph inputs (batch, dim)."""
        scores: Tensor = self.head(input) + SLOPE_BEYOND * self.beyond(input)
        return scores

    def beyond(self, input: Tensor) -> Tensor:
        """About the log of the distance (batch,) of graph inputs (batch, dim) from the box; 0 within it."""
        excess = torch.relu(input.abs() - self.limits)
        return 0.5 * torch.log1p(excess.square().sum(dim=1))

    def example(self) -> Tensor:
        """Two graph inputs, for the export."""
        return torch.zeros(2, self.head.dim)
