"""Distance to the k-th nearest normal vector (Ramaswamy, Rastogi & Shim, SIGMOD 2000), a baseline.

The score is the Euclidean distance, in units of the features. For images this is patch-kNN, the core of PatchCore (Roth
et al., CVPR 2022) with a random memory bank.
"""

from typing import ClassVar

from torch import Tensor

from cloud.methods.neighbours import NeighbourAnalyzer


class KNearestNeighbours(NeighbourAnalyzer):
    """Distance to the 5th nearest of at most MAX_REFERENCE normal vectors."""

    name: ClassVar[str] = "knn"
    is_baseline: ClassVar[bool] = True

    def patch_scores(self, distances: Tensor, dim: int) -> Tensor:
        """Return distances to the 5th nearest reference vector, in units of the features."""
        return distances[:, -1]
