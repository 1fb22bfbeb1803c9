"""Contract of analyzers: one scoring method in one file.

An analyzer is fitted on the features of normal samples and scores others. Its state is plain tensors, stored in a
bundle as safetensors. All analyzers pass the same tests (`tests/cloud/methods`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Self

import torch
from torch import Tensor

from cloud.methods.features import Features, PatchFeatures
from cloud.methods.fit_context import FitContext
from shared.diffusion.denoisers import PreconditionedDenoiser
from shared.diffusion.local_corruption import CorruptionHead
from shared.diffusion.training import Progress


class Need(StrEnum):
    """Kind of data that an analyzer needs beyond single vectors."""

    WINDOWS = "windows"  # the readings of a window
    PATCH_GRID = "patch_grid"  # the patches around a patch
    CORRUPTED_COPIES = "corrupted_copies"  # patches of corrupted copies of training images, at `fit`
    DEFECTS = "defects"  # samples that people labelled as defects, at `fit`


@dataclass(frozen=True)
class AnalyzerOutput:
    """Scores of a batch; higher is more anomalous.

    Attributes:
        scores: (samples,).
        maps: (samples, rows, columns), patch scores of images.
        reconstruction: (samples, patches, dim), the normal version of each sample, from analyzers that make one.
        surprises: (samples, patches, dim), the unlikelihood of each value given the others, from analyzers that
            estimate it.
    """

    scores: Tensor
    maps: Tensor | None = None
    reconstruction: Tensor | None = None
    surprises: Tensor | None = None


class Analyzer(ABC):
    """One scoring method. Its class declares everything that training and serving need to know about it.

    Scores MUST be finite for finite features, and MUST NOT depend on the batch of a sample: a method that draws noise
    draws it once and uses it for every sample. `score` MUST bound its memory for any batch size.

    Attributes:
        name: Name in settings, bundles, verdicts and the console.
        needs: Data beyond single vectors. Where a modality has no such data, the analyzer falls back on vectors.
        is_quick: Whether `fit` takes seconds, without training a network. It is then repeated with held-out samples.
        explains: Whether rows or windows are explained with its output: it has a reconstruction or surprises.
        is_place_scaled: Whether scores of image patches are standardised at each place (see `place_scaled`).
        is_baseline: Whether each training run fits it beside the fused analyzers, as a simple opinion.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()
    is_quick: ClassVar[bool] = False
    explains: ClassVar[bool] = False
    is_place_scaled: ClassVar[bool] = True
    is_baseline: ClassVar[bool] = False

    @abstractmethod
    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Learn from the features of normal samples; all randomness comes from generators of `context`.

        `progress` is called with the rising share of the work done, and with 1.0 at the end.
        """

    @abstractmethod
    def score(self, features: Features) -> AnalyzerOutput:
        """Score samples, on the device of the analyzer and of the features. Only after `fit` or `from_state`."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return everything learned, on the CPU."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the analyzer that `state` described. Raises KeyError or RuntimeError if it does not fit."""

    @abstractmethod
    def to(self, device: torch.device) -> Self:
        """Move to a device, in place; return the analyzer."""

    @property
    def denoisers(self) -> Sequence[PreconditionedDenoiser]:
        """Denoisers that most of the time of `score` goes into; a GPU may run them compiled."""
        return ()

    @property
    def corruption_head(self) -> CorruptionHead | None:
        """Network on patch details that a screener of images can run, from analyzers that have one."""
        return None


def from_patch_scores(patch_scores: Tensor, features: Features, reconstruction: Tensor | None = None) -> AnalyzerOutput:
    """Return the output for patch scores (samples * patches,): maps of images and clips, and pooled scores."""
    samples, patches, _ = features.vectors.shape
    if not isinstance(features, PatchFeatures) or patches == 1:
        return AnalyzerOutput(patch_scores.reshape(samples), None, reconstruction)
    maps = features.judged(patch_scores.reshape(samples, *features.grid))
    return AnalyzerOutput(features.pool(maps), maps, reconstruction)


def in_blocks(function: Callable[[Tensor], Tensor], vectors: Tensor, rows: int) -> Tensor:
    """Apply `function` to at most `rows` vectors at a time, which bounds memory; return the joined results."""
    if len(vectors) <= rows:
        return function(vectors)
    return torch.cat([function(block) for block in torch.split(vectors, rows)])


def cpu_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of the tensors for a bundle: contiguous, on the CPU."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
