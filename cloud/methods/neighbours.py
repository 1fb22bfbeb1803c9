"""Analyzers whose score is a function of the distances to the nearest normal vectors."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from cloud.methods.base import Analyzer, AnalyzerOutput, cpu_state, from_patch_scores
from cloud.methods.features import Features
from cloud.methods.fit_context import FitContext
from cloud.methods.reference import Reference
from shared.diffusion.training import Progress

NEIGHBOURS = 5


class NeighbourAnalyzer(Analyzer):
    """Reference of at most MAX_REFERENCE normal vectors; a subclass makes scores of the NEIGHBOURS nearest."""

    is_quick: ClassVar[bool] = True

    def __init__(self, reference: Reference | None = None):
        self._reference = reference or Reference(torch.empty((0, 0)))

    @abstractmethod
    def patch_scores(self, distances: Tensor, dim: int) -> Tensor:
        """Return scores (vectors,) of ascending distances (vectors, NEIGHBOURS) float64 in `dim` dimensions."""

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Store a random subset of the normal vectors as the reference."""
        self._reference = Reference.drawn(features, context.generator(self.name))
        if progress is not None:
            progress(1.0)

    def score(self, features: Features) -> AnalyzerOutput:
        """Return the scores of `patch_scores`."""
        distances = self._reference.nearest(features, NEIGHBOURS).distances
        return from_patch_scores(self.patch_scores(distances, features.dim).float(), features)

    def state(self) -> dict[str, Tensor]:
        """Return the reference vectors."""
        return cpu_state(self._reference.state())

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the analyzer with the stored reference vectors."""
        return cls(Reference.from_state(state))

    def to(self, device: torch.device) -> Self:
        """Move the reference to a device."""
        self._reference.to(device)
        return self
