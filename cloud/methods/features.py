"""Encoded samples that analyzers are fitted on and score: one type for rows, windows and patches."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from cloud.methods.pooling import image_scores


@dataclass(frozen=True)
class Features:
    """Base of all features: vectors, and which of their entries were observed.

    Analyzers that work on single vectors use nothing else.

    Attributes:
        vectors: (samples, patches, dim) float32, of about unit spread on normal data; one patch for rows and windows.
        observed: (samples, patches, dim) bool, false where a value is missing and the vectors hold 0. None: no value is
            missing.
    """

    vectors: Tensor
    observed: Tensor | None = None

    def __post_init__(self) -> None:
        if self.observed is not None and self.observed.shape != self.vectors.shape:
            raise ValueError(f"A mask of shape {tuple(self.observed.shape)} does not fit {tuple(self.vectors.shape)}.")

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        """Number of values of a vector."""
        return self.vectors.shape[2]

    @property
    def flat(self) -> Tensor:
        """All patches of all samples: (samples * patches, dim), a view of `vectors`."""
        return self.vectors.view(-1, self.dim)

    @property
    def flat_observed(self) -> Tensor | None:
        """Mask of all patches of all samples: (samples * patches, dim) bool. None: no value is missing."""
        return None if self.observed is None else self.observed.reshape(-1, self.dim)

    @property
    def flat_visible(self) -> Tensor:
        """All patches of all samples: (samples * patches, dim), with 0 for missing values."""
        observed = self.flat_observed
        return self.flat if observed is None else torch.where(observed, self.flat, 0.0)

    def at(self, rows: Tensor | slice) -> Self:
        """Return some of the samples: `rows` are positions (k,) int64, a mask (samples,) bool, or a slice."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(
            **{name: value[rows] if isinstance(value, Tensor) else value for name, value in values.items()}
        )

    def blocks(self, samples: int) -> Iterator[Self]:
        """Yield the samples in blocks of at most `samples`."""
        for start in range(0, len(self), samples):
            yield self.at(slice(start, start + samples))


@dataclass(frozen=True)
class VectorFeatures(Features):
    """Rows of a table: vectors (samples, 1, dim).

    Attributes:
        modes: (samples,) int64, the class or operating mode of each sample. None: there are no modes.
    """

    modes: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vectors.ndim != 3 or self.vectors.shape[1] != 1:
            raise ValueError(f"Vectors of rows have the shape (samples, 1, dim), not {tuple(self.vectors.shape)}.")


@dataclass(frozen=True, kw_only=True)
class ViewFeatures(VectorFeatures):
    """Views of the windows of a series, without the windows: see `shared.preprocessing.series`.

    Attributes:
        surprise_columns: Columns of a vector with the unlikelihood of each channel given the others.
    """

    surprise_columns: slice


@dataclass(frozen=True, kw_only=True)
class WindowFeatures(ViewFeatures):
    """Windows of a series with their views.

    Attributes:
        windows: (samples, length, channels) float32, the standardised readings.
        windows_observed: Mask of that shape. None: no reading is missing.
    """

    windows: Tensor
    windows_observed: Tensor | None = None


@dataclass(frozen=True)
class PatchFeatures(Features):
    """Patches of images and clips: vectors (samples, rows * columns, dim).

    Attributes:
        grid: Rows and columns of patches.
        pool: Function from patch scores (samples, rows, columns) to scores of the samples (samples,).
        known: (samples, rows, columns) bool, the patches that can be judged. None: all of them.
    """

    grid: tuple[int, int] = (1, 1)
    pool: Callable[[Tensor], Tensor] = image_scores
    known: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vectors.ndim != 3 or self.vectors.shape[1] != self.grid[0] * self.grid[1]:
            raise ValueError(f"Features of shape {tuple(self.vectors.shape)} do not fit a grid of {self.grid}.")

    def judged(self, maps: Tensor) -> Tensor:
        """Return patch scores (samples, rows, columns) with the lowest known one at patches that are not known."""
        if self.known is None:
            return maps
        lowest = maps.masked_fill(~self.known, float("inf")).flatten(1).amin(dim=1)
        return torch.where(self.known, maps, lowest[:, None, None])


@dataclass(frozen=True, kw_only=True)
class DetailFeatures(PatchFeatures):
    """Patches of images with their details.

    Attributes:
        details: (samples, patches, details) float32, features of each patch from more levels, as inputs of networks.
    """

    details: Tensor
