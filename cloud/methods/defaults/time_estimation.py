"""Diffusion time estimation without a network, DTE-NP (Livernoche et al., ICLR 2024, section 4.1).

The score is the log of the posterior mean noise level given the distances to the nearest normal vectors
(`shared.diffusion.time_estimation`). The head of the screener is distilled from this score.
"""

from typing import ClassVar

from torch import Tensor

from cloud.methods.neighbours import NeighbourAnalyzer
from shared.diffusion.time_estimation import log_posterior_mean


class TimeEstimation(NeighbourAnalyzer):
    """Log posterior mean of the noise level, given the 5 nearest reference vectors.

    The reference holds at most MAX_REFERENCE normal vectors.
    """

    name: ClassVar[str] = "time_estimation"

    def patch_scores(self, distances: Tensor, dim: int) -> Tensor:
        """Return log noise levels, log of units of the features."""
        return log_posterior_mean(distances, dim)
