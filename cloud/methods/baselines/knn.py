"""Distance to the k-th nearest normal vector (Ramaswamy, Rastogi & Shim, SIGMOD 2000), a baseline.

The score is the Euclidean distance, in units of the features. For images this is patch-kNN, the core of PatchCore (Roth
et al., CVPR 2022) with a random memory bank.
"""

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


class KNearestNeighbours(Analyzer):
    """Distance to the 5th nearest of at most MAX_REFERENCE normal vectors."""

    name: ClassVar[str] = "knn"
    is_quick: ClassVar[bool] = True
    is_baseline: ClassVar[bool] = True

    def __init__(self, reference: Reference | None = None):
        self._reference = reference or Reference(torch.empty((0, 0)))

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Store a random subset of the normal vectors as the reference."""
        self._reference = Reference.drawn(features, context.generator(self.name))
        if progress is not None:
            progress(1.0)

    def score(self, features: Features) -> AnalyzerOutput:
        """Return distances to the 5th nearest reference vector, in units of the features."""
        distances = self._reference.nearest(features, NEIGHBOURS).distances
        return from_patch_scores(distances[:, -1].float(), features)

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
