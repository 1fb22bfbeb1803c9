"""Samples in the shape in which they have a neighbourhood: rows of values, windows over time, grids of patches.

Methods that hide or noise what lies together work on these shapes, each with the network made for it.
"""

from collections.abc import Mapping
from enum import IntEnum

import torch
from torch import Tensor

from cloud.methods.features import Features, PatchFeatures, WindowFeatures
from cloud.methods.fit_context import SIGMA_RANGE
from cloud.methods.restoration import Errors
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
        if isinstance(features, WindowFeatures):
            return cls.WINDOWS
        is_grid = isinstance(features, PatchFeatures) and min(features.grid) > 1
        return cls.GRIDS if is_grid else cls.ROWS

    @property
    def channel_axis(self) -> int:
        """The axis along which more channels are put beside the values."""
        return 2 if self is Kind.WINDOWS else 1

    def values(self, features: Features) -> Tensor:
        """The samples on this canvas, missing entries at 0. Raises ValueError for windows where there are none."""
        if self is Kind.ROWS:
            return features.flat_visible
        if self is Kind.GRIDS:
            return _as_grids(features.flat_visible.view(features.vectors.shape), features)
        windows, observed = _windows(features)
        return windows if observed is None else torch.where(observed, windows, 0.0)

    def observed(self, features: Features) -> Tensor | None:
        """Which of the values were observed, in their shape; None: all."""
        if self is Kind.WINDOWS:
            return _windows(features)[1]
        if features.observed is None:
            return None
        return features.flat_observed if self is Kind.ROWS else _as_grids(features.observed, features)

    def errors(self, features: Features, squares: Tensor, restored: Tensor) -> Errors:
        """Errors of square errors and restorations on this canvas; windows restore no vectors."""
        if self is Kind.WINDOWS:
            observed = _windows(features)[1]
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
    if not isinstance(features, PatchFeatures):
        raise ValueError("The analyzer was fitted on grids of patches, and these features have none.")
    return vectors.transpose(1, 2).reshape(len(vectors), -1, *features.grid)


def _windows(features: Features) -> tuple[Tensor, Tensor | None]:
    """Return the windows and their mask. Raises ValueError for features without windows."""
    if not isinstance(features, WindowFeatures):
        raise ValueError("The analyzer was fitted on windows, and these features have none.")
    return features.windows, features.windows_observed
