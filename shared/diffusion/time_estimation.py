"""Diffusion time estimation: the amount of noise that turns a normal sample into a given one.

Source: Livernoche, Jain, Hezaveh & Ravanbakhsh, "On Diffusion Modeling for Anomaly Detection" (ICLR 2024), section 4.
Given one normal sample at distance r in d dimensions, the noise variance sigma^2 of x has the posterior
InverseGamma(d/2 - 1, r^2/2), whose mean is r^2 / (d - 4). DTE-NP averages that over the k nearest normal samples,
because the others have negligible weight. A network that estimates it needs no reference samples.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SIGMA_FLOOR = 0.02  # in standard deviations of normal data; samples nearer than this count as equal


def log_posterior_mean(distances: Tensor, dim: int) -> Tensor:
    """Return the log posterior mean noise level (batch,) for `distances` (batch, neighbours) to the nearest normals.

    This is half the log of the mean noise variance, r^2 / (d - 4) averaged over the neighbours. For d <= 4 the
    posterior has no mean; its scale r^2 replaces it, which orders samples equally. SIGMA_FLOOR keeps the score of
    duplicates finite.
    """
    variance = distances.square().mean(dim=1) / max(dim - 4, 1)
    return 0.5 * torch.log(variance + SIGMA_FLOOR**2)


class TimeEstimationHead(nn.Module):
    """ReLU MLP that estimates the log posterior mean noise level of a vector without reference samples.

    Inputs have about unit variance on normal data. A ReLU network extrapolates linearly beyond its training range, so a
    distant vector scores high. Preprocessing compresses such values, which keeps the range of an INT8 input.
    """

    def __init__(self, dim: int, hidden: tuple[int, ...] = (256, 384, 256)):
        super().__init__()
        self.dim = dim
        widths = (dim, *hidden)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (batch,) of vectors (batch, dim); higher is more anomalous."""
        scores: Tensor = self.layers(x).squeeze(-1)
        return scores

    def to_arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return copies of the parameters, by name."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.state_dict().items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the head that `to_arrays` wrote, with the sizes of the arrays. Raises ValueError for other arrays."""
        names = sorted((name for name in arrays if name.endswith(".weight")), key=lambda name: int(name.split(".")[1]))
        weights = [np.asarray(arrays[name]) for name in names]
        if not weights or any(weight.ndim != 2 for weight in weights):
            raise ValueError("Not a time estimation head: it has no weight matrices.")
        head = cls(weights[0].shape[1], tuple(weight.shape[0] for weight in weights[:-1]))
        state = {name: torch.from_numpy(np.array(value, dtype=np.float32)) for name, value in arrays.items()}
        try:
            head.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"Not a time estimation head: {' '.join(str(error).split())}") from None
        return head
