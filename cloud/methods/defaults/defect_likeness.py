"""Likeness to labelled defects, against that to normal samples: the member of the fusion that learns from labels.

With d_n(x) the mean distance to the 5 nearest normal vectors and d_d(x) the distance to the nearest labelled defect,

    s(x) = log(d_n(x) + e) - log(d_d(x) + e)

where e, a tenth of the median d_n of normal vectors, keeps the score finite. It is the log ratio of two nearest
neighbour densities (Loftsgaarden & Quesenberry, Annals of Mathematical Statistics 1965) but for constants.

Its p-value is an integrative conformal one (Liang, Sesia & Sun, "Integrative conformal p-values for out-of-distribution
testing with labelled outliers", JRSS B 2024): labelled defects are in the score alone, and held-out normals, labelled
false alarms among them, in the calibration. So it is valid whatever was labelled, and however few.

Images have no labels of patches: the vectors of a defective image that count as defects are those farthest from normal
ones. Without a label the score is log d_n(x), which orders as kNN does.
"""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from cloud.methods.base import Analyzer, AnalyzerOutput, Need, cpu_state, from_patch_scores
from cloud.methods.features import Features
from cloud.methods.fit_context import FitContext
from cloud.methods.reference import Reference
from shared.diffusion.training import Progress

NEIGHBOURS = 5
FLOOR_SHARE = 0.1  # of the median distance of normal vectors
MAX_MEDIAN_ROWS = 1000  # normal vectors that the median is taken over
DEFECT_PATCH_SHARE, MIN_DEFECT_PATCHES = 0.01, 3  # vectors of a defective image that count as defects


class DefectLikeness(Analyzer):
    """Log ratio of the distances to normal vectors and to labelled defects, without unit."""

    name: ClassVar[str] = "defect_likeness"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DEFECTS})
    is_quick: ClassVar[bool] = True

    def __init__(self, normals: Reference | None = None, defects: Tensor | None = None, floor: Tensor | None = None):
        self._normals = normals or Reference(torch.empty((0, 0)))
        self._defects = torch.empty((0, 0)) if defects is None else defects
        self._floor = torch.ones(1, dtype=torch.float64) if floor is None else floor

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Store normal vectors and the vectors of the labelled defects."""
        generator = context.generator(self.name)
        self._normals = Reference.drawn(features, generator)
        rows = self._normals.vectors[:MAX_MEDIAN_ROWS]
        known = None if self._normals.variances is None else self._normals.variances[:MAX_MEDIAN_ROWS] == 0
        near = Reference(self._normals.vectors, self._normals.variances)
        distances = near.nearest(Features(rows.unsqueeze(1), None if known is None else known.unsqueeze(1)), NEIGHBOURS)
        self._floor = FLOOR_SHARE * distances.distances.mean(dim=1).median().clamp(min=1e-9).reshape(1)
        self._defects = features.flat[:0] if context.defects is None else self._defect_vectors(context.defects)
        if progress is not None:
            progress(1.0)

    def score(self, features: Features) -> AnalyzerOutput:
        """Return the log ratio; for images maps of it, and the pooled score."""
        scores = torch.log(self._normal_distances(features) + self._floor)
        if len(self._defects):
            found = Reference(self._defects).nearest(features, 1).distances[:, 0]
            scores = scores - torch.log(found + self._floor)
        return from_patch_scores(scores.float(), features)

    def state(self) -> dict[str, Tensor]:
        """Return normal vectors, defect vectors and the floor."""
        return cpu_state({**self._normals.state(), "defects": self._defects, "floor": self._floor})

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the analyzer with the stored vectors."""
        return cls(Reference.from_state(state), state["defects"], state["floor"])

    def to(self, device: torch.device) -> Self:
        """Move the vectors to a device."""
        self._normals.to(device)
        self._defects, self._floor = self._defects.to(device), self._floor.to(device)
        return self

    def _normal_distances(self, features: Features) -> Tensor:
        return self._normals.nearest(features, NEIGHBOURS).distances.mean(dim=1)

    def _defect_vectors(self, defects: Features) -> Tensor:
        """Return the vectors (k, dim) that count as defects: all of rows, the farthest ones of each image."""
        samples, patches, dim = defects.vectors.shape
        if patches == 1:
            return defects.flat_visible
        count = min(patches, max(MIN_DEFECT_PATCHES, round(DEFECT_PATCH_SHARE * patches)))
        farthest = self._normal_distances(defects).reshape(samples, patches).topk(count, dim=1).indices
        return defects.vectors.gather(1, farthest.unsqueeze(2).expand(-1, -1, dim)).reshape(-1, dim)
