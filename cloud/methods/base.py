"""What an analyzer is: one scoring method in one file.

An analyzer is fitted on the features of normal samples and scores others. Its state is plain tensors, stored in a
bundle as safetensors. All analyzers pass the same tests (`tests/cloud/methods`).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor

from cloud.methods.pooling import image_scores
from cloud.methods.workshop import Workshop
from shared.diffusion.training import Progress


@dataclass(frozen=True)
class Features:
    """Encoded samples. `vectors`: (samples, patches, dim) float32, of about unit spread on normal data.

    `grid`: rows and columns of patches, of an image; (1, 1) for a table's row or a series window.
    `observed`: bool of the shape of `vectors`, false where a value is missing (and the vectors hold 0); None: all are.
    `windows`: (samples, length, channels) float32, the standardised readings behind a series window's vector, with
    `windows_observed` of the same shape. `surprise_columns`: where in such a vector it stands how unexpected each
    channel is given the others. `modes`: (samples,) int64, the class or operating mode of each sample.
    `details`: (samples, patches, details) float32, a wider view of an image's patches, for networks that learn from it.
    `pool`: from patch scores (samples, rows, columns) to those of the samples (samples,).
    `known`: (samples, rows, columns) bool, the patches of an image that can be judged; None: all can.
    """

    vectors: Tensor
    grid: tuple[int, int] = (1, 1)
    observed: Tensor | None = None
    windows: Tensor | None = None
    windows_observed: Tensor | None = None
    modes: Tensor | None = None
    surprise_columns: slice | None = None
    details: Tensor | None = None
    pool: Callable[[Tensor], Tensor] = image_scores
    known: Tensor | None = None

    def __post_init__(self) -> None:
        if self.vectors.ndim != 3 or self.vectors.shape[1] != self.grid[0] * self.grid[1]:
            raise ValueError(f"Features of shape {tuple(self.vectors.shape)} do not fit a grid of {self.grid}.")
        if self.observed is not None and self.observed.shape != self.vectors.shape:
            raise ValueError(f"A mask of shape {tuple(self.observed.shape)} does not fit {tuple(self.vectors.shape)}.")

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def flat(self) -> Tensor:
        """All patches of all samples: (samples * patches, dim), a view of `vectors`."""
        return self.vectors.view(-1, self.vectors.shape[2])

    def at(self, rows: Tensor | slice) -> "Features":
        """Some of the samples: `rows` are positions (k,) int64, a mask (samples,) bool, or a slice."""

        def of(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[rows]

        return Features(
            self.vectors[rows],
            self.grid,
            observed=of(self.observed),
            windows=of(self.windows),
            windows_observed=of(self.windows_observed),
            modes=of(self.modes),
            surprise_columns=self.surprise_columns,
            details=of(self.details),
            pool=self.pool,
            known=of(self.known),
        )

    def judged(self, maps: Tensor) -> Tensor:
        """Patch scores (samples, rows, columns) with those of patches that cannot be judged as low as the lowest."""
        if self.known is None:
            return maps
        lowest = maps.masked_fill(~self.known, float("inf")).flatten(1).amin(dim=1)
        return torch.where(self.known, maps, lowest[:, None, None])

    def blocks(self, samples: int) -> Iterator["Features"]:
        """The same samples, at most `samples` at a time."""
        for start in range(0, len(self), samples):
            yield self.at(slice(start, start + samples))


@dataclass(frozen=True)
class AnalyzerOutput:
    """What an analyzer says of a batch, higher being more anomalous.

    `scores`: (samples,). `maps`: (samples, rows, columns) of patch scores, for images. `reconstruction`: (samples,
    patches, dim), what the sample would look like were it normal, from analyzers that make one. `surprises`: (samples,
    patches, dim), how unlikely each value is beside the others, from analyzers that ask.
    """

    scores: Tensor
    maps: Tensor | None = None
    reconstruction: Tensor | None = None
    surprises: Tensor | None = None


class Analyzer(Protocol):
    """One scoring method.

    Scores MUST be finite for finite features, and MUST NOT depend on the batch a sample came in: a method that draws
    noise draws it once and uses it for every sample. `score` MUST bound its memory whatever the batch size.
    """

    name: ClassVar[str]

    def fit(self, features: Features, workshop: Workshop, progress: Progress | None = None) -> None:
        """Learn from the features of normal samples; all randomness comes from generators of `workshop`."""
        ...

    def score(self, features: Features) -> AnalyzerOutput:
        """Judge samples, on the device of the analyzer and of the features. Only after `fit` or `from_state`."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All that was learned, on the CPU."""
        ...

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The analyzer that `state` described. Raises KeyError or RuntimeError if it does not fit."""
        ...

    def to(self, device: torch.device) -> Self:
        """Move to a device, in place; returns itself."""
        ...


def from_patch_scores(patch_scores: Tensor, features: Features, reconstruction: Tensor | None = None) -> AnalyzerOutput:
    """The output for patch scores (samples * patches,): maps, and for each sample their `pool`."""
    samples, patches, _ = features.vectors.shape
    if patches == 1:
        return AnalyzerOutput(patch_scores.reshape(samples), None, reconstruction)
    maps = features.judged(patch_scores.reshape(samples, *features.grid))
    return AnalyzerOutput(features.pool(maps), maps, reconstruction)


def in_blocks(function: Callable[[Tensor], Tensor], vectors: Tensor, rows: int) -> Tensor:
    """`function` of the rows of `vectors`, at most `rows` at a time, so that memory stays bounded."""
    if len(vectors) <= rows:
        return function(vectors)
    return torch.cat([function(block) for block in torch.split(vectors, rows)])


def cpu_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as a bundle stores them: on the CPU, contiguous, apart from the analyzer's own."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
