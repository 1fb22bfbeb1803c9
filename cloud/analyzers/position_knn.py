"""Distance to the k-th nearest normal vector of the same place, for a camera that stands still.

What is normal at the door is not normal on the ceiling: a patch is compared only with what normal samples showed at its
place. Source: the distance of Ramaswamy, Rastogi & Shim (SIGMOD 2000), with the places of PaDiM (Defard et al., ICPR
2020, section 3.1).
"""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from cloud.analyzers.base import AnalyzerOutput, Features, cpu_state, from_patch_scores
from cloud.analyzers.workshop import Workshop
from shared.diffusion.distillation import subsample
from shared.diffusion.neighbours import nearest_distances
from shared.diffusion.training import Progress

NEIGHBOURS = 5
MAX_REFERENCE = 1000  # samples, and so as many vectors a place
MAX_VALUES = 2**23  # numbers kept in all: 32 MiB of float32


class PositionNeighbours:
    """Distance to the 5th nearest of the vectors that normal samples have at the same place."""

    name: ClassVar[str] = "position_knn"

    def __init__(self, reference: Tensor | None = None):
        self._reference = torch.empty((0, 0, 0)) if reference is None else reference

    def fit(self, features: Features, workshop: Workshop, progress: Progress | None = None) -> None:
        """Keep all places of a random part of the normal samples; `features` must hold whole samples."""
        values = features.vectors.shape[1] * features.vectors.shape[2]
        limit = max(NEIGHBOURS, min(MAX_REFERENCE, MAX_VALUES // values))
        chosen = subsample(features.vectors, limit, workshop.generator(self.name))
        self._reference = chosen.transpose(0, 1).contiguous()
        if progress is not None:
            progress(1.0)

    def score(self, features: Features) -> AnalyzerOutput:
        """Distances, in units of the features. Raises ValueError for samples of another number of places."""
        places = features.vectors.shape[1]
        if places != len(self._reference):
            raise ValueError(f"Samples have {places} places, and position_knn was fitted on {len(self._reference)}.")
        distances = [
            nearest_distances(features.vectors[:, place], reference, NEIGHBOURS)[:, -1]
            for place, reference in enumerate(self._reference)
        ]
        return from_patch_scores(torch.stack(distances, dim=1).flatten(), features)

    def state(self) -> dict[str, Tensor]:
        """The reference vectors (places, samples, dim)."""
        return cpu_state({"reference": self._reference})

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The analyzer with these reference vectors."""
        return cls(state["reference"])

    def to(self, device: torch.device) -> Self:
        """Move the reference to a device."""
        self._reference = self._reference.to(device)
        return self
