"""Local Outlier Factor (Breunig, Kriegel, Ng & Sander, SIGMOD 2000) for novelty detection.

With lrd the local reachability density, the score is the ratio (without unit)

    LOF(x) = mean over the nearest normal vectors y of  lrd(y) / lrd(x)

Definition and values are those of scikit-learn's `LocalOutlierFactor(novelty=True)`, which does not support missing
values and is stored as a pickle only. The neighbours come from `cloud.methods.reference`.
"""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from cloud.methods.base import Analyzer, AnalyzerOutput, cpu_state, from_patch_scores
from cloud.methods.features import Features
from cloud.methods.fit_context import FitContext
from cloud.methods.reference import Neighbours, Reference
from shared.diffusion.training import Progress
from shared.errors import DataError

NEIGHBOURS = 20
DENSITY_FLOOR = 1e-10  # added to mean distances, as in scikit-learn; bounds the density of duplicates


class LocalOutlierFactor(Analyzer):
    """Mean local density of the 20 nearest normal vectors, divided by the density of the sample.

    The neighbours come from at most MAX_REFERENCE normal vectors.
    """

    name: ClassVar[str] = "lof"
    is_quick: ClassVar[bool] = True

    def __init__(
        self, reference: Reference | None = None, k_distances: Tensor | None = None, densities: Tensor | None = None
    ):
        self._reference = reference or Reference(torch.empty((0, 0)))
        self._k_distances = torch.empty(0) if k_distances is None else k_distances  # (rows,) float64
        self._densities = torch.empty(0) if densities is None else densities  # (rows,) float64

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Store a random subset of the normal vectors with their k-distances and densities.

        Raises DataError for fewer than two normal vectors.
        """
        self._reference = Reference.drawn(features, context.generator(self.name))
        if len(self._reference) < 2:
            raise DataError("lof: a local density needs at least two normal vectors; give more normal data.")
        neighbours = self._reference.nearest_within(self._count)
        self._k_distances = neighbours.distances[:, -1]
        self._densities = self._density(neighbours)
        if progress is not None:
            progress(1.0)

    def score(self, features: Features) -> AnalyzerOutput:
        """Return outlier factors: about 1 within normal data, 1 for a vector without an observed entry."""
        neighbours = self._reference.nearest(features, self._count)
        factors = self._densities[neighbours.rows].mean(dim=1) / self._density(neighbours)
        observed = features.flat_observed
        if observed is not None:
            factors = torch.where(observed.any(dim=1), factors, 1.0)
        return from_patch_scores(factors.float(), features)

    def state(self) -> dict[str, Tensor]:
        """Return the reference vectors, their k-distances and densities."""
        own = {"k_distances": self._k_distances, "densities": self._densities}
        return cpu_state({**self._reference.state(), **own})

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the analyzer with the stored reference vectors, k-distances and densities."""
        return cls(Reference.from_state(state), state["k_distances"], state["densities"])

    def to(self, device: torch.device) -> Self:
        """Move the reference, k-distances and densities to a device."""
        self._reference.to(device)
        self._k_distances, self._densities = self._k_distances.to(device), self._densities.to(device)
        return self

    @property
    def _count(self) -> int:
        """Number of neighbours, at most NEIGHBOURS and below the size of the reference."""
        return min(NEIGHBOURS, len(self._reference) - 1)

    def _density(self, neighbours: Neighbours) -> Tensor:
        """Return one over the mean reachability distance: (rows,) (definitions 5 and 6)."""
        reachability = torch.maximum(neighbours.distances, self._k_distances[neighbours.rows])
        return 1.0 / (reachability.mean(dim=1) + DENSITY_FLOOR)
