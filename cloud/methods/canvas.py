"""Samples in the shape in which they have a neighbourhood: rows of values, windows over time, grids of patches.

Methods that hide or noise what lies together work on these shapes, each with the network made for it.
"""

from collections.abc import Mapping
from enum import IntEnum

import torch
from torch import Tensor

from cloud.methods.base import Features
from cloud.methods.masks import flat_observed, flat_visible
from cloud.methods.restoration import Errors
from cloud.methods.workshop import SIGMA_RANGE
from shared.diffusion.denoisers import ImageDenoiser, PreconditionedDenoiser, VectorDenoiser, WindowDenoiser
from shared.diffusion.schedules import log_uniform_sigmas

SMALL_BATCH = 32  # windows and grids are many values each


class Kind(IntEnum):
    """The shape of a canvas: ROWS (n, dim), WINDOWS (n, length, channels), GRIDS (n, dim, rows, columns)."""

    ROWS = 0
    WINDOWS = 1
    GRIDS = 2

    @classmethod
    def of(cls, features: Features) -> "Kind":
        """What `features` are best seen as. A single line of patches is a random choice of them, and no grid."""
        if features.windows is not None:
            return cls.WINDOWS
        return cls.GRIDS if min(features.grid) > 1 else cls.ROWS

    @property
    def channel_axis(self) -> int:
        """The axis along which more channels are put beside the values."""
        return 2 if self is Kind.WINDOWS else 1

    def values(self, features: Features) -> Tensor:
        """The samples on this canvas, missing entries at 0. Raises ValueError for windows where there are none."""
        if self is Kind.ROWS:
            return flat_visible(features)
        if self is Kind.GRIDS:
            return _as_grids(flat_visible(features).view(features.vectors.shape), features)
        if features.windows is None:
            raise ValueError("The analyzer was fitted on windows, and these features carry none.")
        observed = features.windows_observed
        return features.windows if observed is None else torch.where(observed, features.windows, 0.0)

    def observed(self, features: Features) -> Tensor | None:
        """Which of the values were observed, in their shape; None: all."""
        if self is Kind.WINDOWS:
            return features.windows_observed
        if features.observed is None:
            return None
        return flat_observed(features) if self is Kind.ROWS else _as_grids(features.observed, features)

    def errors(self, features: Features, squares: Tensor, restored: Tensor) -> Errors:
        """Errors of square errors and restorations on this canvas; windows restore no vectors."""
        if self is Kind.WINDOWS:
            observed = features.windows_observed
            return Errors(squares.flatten(1).unsqueeze(1), None if observed is None else observed.flatten(1)[:, None])
        if self is Kind.GRIDS:
            squares, restored = (tensor.flatten(2).transpose(1, 2) for tensor in (squares, restored))
        shape = features.vectors.shape
        return Errors(squares.reshape(shape), features.observed, restored.reshape(shape))

    def new_network(self, values: Tensor, generator: torch.Generator, extra: int = 0) -> PreconditionedDenoiser:
        """An untrained denoiser of values like these with `extra` more input channels, on their device."""
        spread = float(values.var(dim=0, correction=0).mean().sqrt().clamp(0.1, 1e3))
        channels = values.shape[self.channel_axis] + extra
        network = _NETWORKS[self].initialised(channels, sigma_data=spread, generator=generator)
        return network.to(values.device)

    def network_from(self, state: Mapping[str, Tensor]) -> PreconditionedDenoiser:
        """The denoiser that `to_state` described."""
        return _NETWORKS[self].from_state(state)

    def batch_size(self, wanted: int) -> int:
        """How many samples make a training batch."""
        return wanted if self is Kind.ROWS else min(wanted, SMALL_BATCH)


_NETWORKS: dict[Kind, type[PreconditionedDenoiser]] = {
    Kind.ROWS: VectorDenoiser,
    Kind.WINDOWS: WindowDenoiser,
    Kind.GRIDS: ImageDenoiser,
}


def draw_levels(count: int, values: Tensor, generator: torch.Generator) -> Tensor:
    """Noise levels for a batch of `values` (n, ...), log-uniform in the workshop's range: (count, 1, ..., 1)."""
    sigmas = log_uniform_sigmas(count, SIGMA_RANGE, generator=generator)
    return sigmas.reshape(-1, *[1] * (values.ndim - 1)).to(values.device)


def _as_grids(vectors: Tensor, features: Features) -> Tensor:
    """(samples, patches, dim) as (samples, dim, rows, columns)."""
    return vectors.transpose(1, 2).reshape(len(vectors), -1, *features.grid)
