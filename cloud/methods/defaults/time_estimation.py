"""Diffusion time estimation without a network, DTE-NP (Livernoche et al., ICLR 2024, section 4.1).

The score is the log of the posterior mean noise level given the distances to the nearest normal vectors
(`shared.diffusion.time_estimation`). The head of the screener is distilled from this score.
"""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from cloud.methods.base import Analyzer, AnalyzerOutput, cpu_state, from_patch_scores
from cloud.methods.features import Features
from cloud.methods.fit_context import FitContext
from cloud.methods.reference import Reference
from shared.diffusion.time_estimation import log_posterior_mean
from shared.diffusion.training import Progress

NEIGHBOURS = 5


class TimeEstimation(Analyzer):
    """Log posterior mean of the noise level, given the 5 nearest reference vectors.

    The reference holds at most MAX_REFERENCE normal vectors.
    """

    name: ClassVar[str] = "time_estimation"
    is_quick: ClassVar[bool] = True

    def __init__(self, reference: Reference | None = None):
        self._reference = reference or Reference(torch.empty((0, 0)))

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Store a random subset of the normal vectors as the reference."""
        self._reference = Reference.drawn(features, context.generator(self.name))
        if progress is not None:
            progress(1.0)

    def score(self, features: Features) -> AnalyzerOutput:
        """Return log noise levels, log of units of the features."""
        distances = self._reference.nearest(features, NEIGHBOURS).distances
        return from_patch_scores(log_posterior_mean(distances, features.dim).float(), features)

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
