"""Norm of the score at several noise levels, each standardised on normal data and weighted by its worth.

Source: multiscale score matching, Mahmood, Oliva & Styner, "Multiscale Score Matching for Out-of-Distribution
Detection" (ICLR 2021): where the data is dense at scale sigma, the gradient of the noised log density is small. Which
scale tells most depends on the data, so the levels are weighted by how well each tells normal vectors from the same
vectors perturbed; no anomaly is needed for that.
"""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from cloud.methods.base import Analyzer, AnalyzerOutput, cpu_state, from_patch_scores, in_blocks
from cloud.methods.features import Features
from cloud.methods.fit_context import FitContext
from cloud.methods.masks import sum_observed
from shared.diffusion.denoisers import VectorDenoiser
from shared.diffusion.denoisers import score as score_of
from shared.diffusion.perturbation import perturb, subsample
from shared.diffusion.schedules import geometric_sigmas
from shared.diffusion.training import Progress

SIGMA_RANGE = (0.1, 5.0)
LEVELS = 8
MAX_STANDARDISED = 5_000
BLOCK_ROWS = 4096


class ScoreNorm(Analyzer):
    """Weighted mean over noise levels of the standardised log norm of sigma times the score."""

    name: ClassVar[str] = "score_norm"

    def __init__(self, denoiser: VectorDenoiser | None = None, levels: Tensor | None = None):
        self._denoiser = denoiser
        # (levels, 4): sigma, then mean and deviation of the log norm on normal data, and the weight
        self._levels = torch.empty((0, 4)) if levels is None else levels

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Train a denoiser, then take mean and deviation of the log norm at each level, and the level's weight."""
        generator = context.generator(self.name)
        self._denoiser = context.denoiser(features.flat, features.flat_observed, progress)
        device, observed = features.flat.device, features.flat_observed
        sigmas = geometric_sigmas(LEVELS, *SIGMA_RANGE).float().to(device)
        rows = subsample(torch.arange(len(features.flat)), MAX_STANDARDISED, generator).to(device)
        normals, known = features.flat[rows], None if observed is None else observed[rows]
        perturbed, origins = perturb(normals, len(rows), generator)
        norms = self._log_norms(normals, known, sigmas)
        perturbed_norms = self._log_norms(perturbed, None if known is None else known[origins], sigmas)
        weights = level_weights(norms, perturbed_norms)
        deviations = norms.std(dim=0, correction=0).clamp(min=1e-3)
        self._levels = torch.stack([sigmas, norms.mean(dim=0), deviations, weights], dim=1)

    def score(self, features: Features) -> AnalyzerOutput:
        """Standard deviations above normal, averaged over the levels by their weights."""
        sigmas, means, deviations, weights = self._levels.unbind(1)
        vectors, observed = features.flat, features.flat_observed

        def scores(rows: Tensor) -> Tensor:
            norms = self._log_norms(vectors[rows], None if observed is None else observed[rows], sigmas)
            return ((norms - means) / deviations) @ weights

        every = torch.arange(len(vectors), device=vectors.device)
        return from_patch_scores(in_blocks(scores, every, BLOCK_ROWS), features)

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
    def _log_norms(self, vectors: Tensor, observed: Tensor | None, sigmas: Tensor) -> Tensor:
        """Log of |sigma * score| in the observed entries, at each level: (rows, levels)."""
        known = torch.ones_like(vectors, dtype=torch.bool) if observed is None else observed
        vectors = torch.where(known, vectors, 0.0)
        columns = []
        for sigma in sigmas:
            scores = score_of(self._trained(), vectors, sigma.expand(len(vectors), 1))
            columns.append(0.5 * torch.log(sum_observed((sigma * scores).square(), known) + 1e-12))
        return torch.stack(columns, dim=1)

    def _trained(self) -> VectorDenoiser:
        if self._denoiser is None:
            raise RuntimeError("ScoreNorm is not fitted: call fit() first.")
        return self._denoiser


def level_weights(normal: Tensor, perturbed: Tensor) -> Tensor:
    """Weights (levels,) that sum to 1, from the log norms (rows, levels) of normal and of perturbed vectors.

    A level's worth is how far its AUROC between the two lies above chance. Equal weights where none tells anything.
    """
    ordered, queries = normal.T.contiguous().sort(dim=1).values, perturbed.T.contiguous()
    below, up_to = (torch.searchsorted(ordered, queries, right=right).float() for right in (False, True))
    auroc = (below + up_to).mean(dim=1) / (2 * len(normal))
    worth = (auroc - 0.5).clamp(min=1e-3)
    return worth / worth.sum()
