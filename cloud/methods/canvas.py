"""Samples as rows of values, windows over time or grids of patches, with a denoiser for each shape.

Methods that hide or noise adjacent values work on these shapes.
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

MAX_STRUCTURED_BATCH = 32  # windows and grids have many values each


class Kind(IntEnum):
    """Shape of a canvas: ROWS (n, dim), WINDOWS (n, length, channels), GRIDS (n, dim, rows, columns)."""

    ROWS = 0
    WINDOWS = 1
    GRIDS = 2

    @classmethod
    def of(cls, features: Features) -> "Kind":
        """Return the kind for `features`. A single line of patches is a random subset, so it is not a grid."""
        if isinstance(features, WindowFeatures):
            return cls.WINDOWS
        is_grid = isinstance(features, PatchFeatures) and min(features.grid) > 1
        return cls.GRIDS if is_grid else cls.ROWS

    @property
    def channel_axis(self) -> int:
        """Axis of the channels."""
        return 2 if self is Kind.WINDOWS else 1

    def values(self, features: Features) -> Tensor:
        """Return the samples in this shape, with 0 for missing entries. Raises ValueError for unsuitable features."""
        if self is Kind.ROWS:
            return features.flat_visible
        if self is Kind.GRIDS:
            return _as_grids(features.flat_visible.view(features.vectors.shape), features)
        windows, observed = _windows(features)
        return windows if observed is None else torch.where(observed, windows, 0.0)

    def observed(self, features: Features) -> Tensor | None:
        """Return a mask of the observed values in this shape; None: all are observed."""
        if self is Kind.WINDOWS:
            return _windows(features)[1]
        if features.observed is None:
            return None
        return features.flat_observed if self is Kind.ROWS else _as_grids(features.observed, features)

    def errors(self, features: Features, squares: Tensor, restored: Tensor) -> Errors:
        """Return errors from square errors and restorations in this shape; windows have no restored vectors."""
        if self is Kind.WINDOWS:
            observed = _windows(features)[1]
            return Errors(squares.flatten(1).unsqueeze(1), None if observed is None else observed.flatten(1)[:, None])
        if self is Kind.GRIDS:
            squares, restored = (tensor.flatten(2).transpose(1, 2) for tensor in (squares, restored))
        shape = features.vectors.shape
        return Errors(squares.reshape(shape), features.observed, restored.reshape(shape))

    def new_network(self, values: Tensor, generator: torch.Generator, extra: int = 0) -> PreconditionedDenoiser:
        """Return an untrained denoiser for the shape of `values` and `extra` input channels, on their device."""
        spread = float(values.var(dim=0, correction=0).mean().sqrt().clamp(0.1, 1e3))
        channels = values.shape[self.channel_axis] + extra
        network = _NETWORKS[self].initialised(channels, sigma_data=spread, generator=generator)
        return network.to(values.device)

    def network_from(self, state: Mapping[str, Tensor]) -> PreconditionedDenoiser:
        """Return the denoiser that `to_state` described."""
        return _NETWORKS[self].from_state(state)

    def batch_size(self, rows: int) -> int:
        """Return the training batch size, given the batch size for rows."""
        return rows if self is Kind.ROWS else min(rows, MAX_STRUCTURED_BATCH)


_NETWORKS: dict[Kind, type[PreconditionedDenoiser]] = {
    Kind.ROWS: VectorDenoiser,
    Kind.WINDOWS: WindowDenoiser,
    Kind.GRIDS: ImageDenoiser,
}


def draw_levels(count: int, values: Tensor, generator: torch.Generator) -> Tensor:
    """Return log-uniform noise levels (count, 1, ..., 1) in SIGMA_RANGE for a batch of `values` (n, ...)."""
    sigmas = log_uniform_sigmas(count, SIGMA_RANGE, generator=generator)
    return sigmas.reshape(-1, *[1] * (values.ndim - 1)).to(values.device)


def _as_grids(vectors: Tensor, features: Features) -> Tensor:
    """Return vectors (samples, patches, dim) as grids (samples, dim, rows, columns)."""
    if not isinstance(features, PatchFeatures):
        raise ValueError("The analyzer was fitted on grids of patches, but these features have none.")
    return vectors.transpose(1, 2).reshape(len(vectors), -1, *features.grid)


def _windows(features: Features) -> tuple[Tensor, Tensor | None]:
    """Return the windows and their mask. Raises ValueError for features without windows."""
    if not isinstance(features, WindowFeatures):
        raise ValueError("The analyzer was fitted on windows, but these features have none.")
    return features.windows, features.windows_observed
