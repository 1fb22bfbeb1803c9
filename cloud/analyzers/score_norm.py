"""Norm of the score at several noise levels, each standardised on normal data.

Source: multiscale score matching, Mahmood, Oliva & Styner, "Multiscale Score Matching for Out-of-Distribution
Detection" (ICLR 2021): where the data is dense at scale sigma, the gradient of the noised log density is small.
"""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from cloud.analyzers.base import AnalyzerOutput, Features, cpu_state, from_patch_scores, in_blocks
from cloud.analyzers.workshop import Workshop
from shared.diffusion.denoisers import VectorDenoiser
from shared.diffusion.denoisers import score as score_of
from shared.diffusion.distillation import subsample
from shared.diffusion.schedules import geometric_sigmas
from shared.diffusion.training import Progress

SIGMA_RANGE = (0.5, 4.0)
LEVELS = 5
MAX_STANDARDISED = 20_000
BLOCK_ROWS = 4096


class ScoreNorm:
    """Mean over noise levels of the standardised log norm of sigma times the score."""

    name: ClassVar[str] = "score_norm"

    def __init__(self, denoiser: VectorDenoiser | None = None, levels: Tensor | None = None):
        self._denoiser = denoiser
        self._levels = torch.empty((0, 3)) if levels is None else levels  # (levels, 3): sigma, mean, deviation

    def fit(self, features: Features, workshop: Workshop, progress: Progress | None = None) -> None:
        """Train a denoiser, then take mean and deviation of the log norm at each level."""
        normals = features.flat
        generator = workshop.generator(self.name)
        self._denoiser = workshop.denoiser(normals, progress)
        sigmas = geometric_sigmas(LEVELS, *SIGMA_RANGE).float().to(normals.device)
        norms = self._log_norms(subsample(normals, MAX_STANDARDISED, generator), sigmas)
        self._levels = torch.stack([sigmas, norms.mean(0), norms.std(0, correction=0).clamp(min=1e-3)], dim=1)

    def score(self, features: Features) -> AnalyzerOutput:
        """Standard deviations above normal, averaged over the levels."""
        sigmas, means, deviations = self._levels.unbind(1)
        norms = in_blocks(lambda rows: self._log_norms(rows, sigmas), features.flat, BLOCK_ROWS)
        return from_patch_scores(((norms - means) / deviations).mean(dim=1), features)

    def state(self) -> dict[str, Tensor]:
        """The denoiser and the levels."""
        return cpu_state({**self._trained().to_state(), "levels": self._levels})

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The analyzer with this denoiser."""
        return cls(VectorDenoiser.from_state(state), state["levels"])

    def to(self, device: torch.device) -> Self:
        """Move the network to a device."""
        self._trained().to(device)
        self._levels = self._levels.to(device)
        return self

    @torch.no_grad()
    def _log_norms(self, vectors: Tensor, sigmas: Tensor) -> Tensor:
        """Log of |sigma * score| at each level: (rows, levels)."""
        columns = []
        for sigma in sigmas:
            column = sigma.expand(len(vectors), 1)
            norm = (sigma * score_of(self._trained(), vectors, column)).norm(dim=1)
            columns.append(torch.log(norm + 1e-6))
        return torch.stack(columns, dim=1)

    def _trained(self) -> VectorDenoiser:
        if self._denoiser is None:
            raise RuntimeError("ScoreNorm is not fitted: call fit() first.")
        return self._denoiser
