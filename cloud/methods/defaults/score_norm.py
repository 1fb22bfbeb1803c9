"""Score norm: the norm of the score at several noise levels, standardised on normal data.

Source: multiscale score matching, Mahmood, Oliva & Styner, "Multiscale Score Matching for Out-of-Distribution
Detection" (ICLR 2021). Where the data is dense at scale sigma, the gradient of the noised log density is small. The
score is, in standard deviations of normal data,

    s(x) = sum over levels l of  w_l (log |sigma_l grad log p_l(x)| - mean_l) / deviation_l

The most informative scale depends on the data. The weight w_l therefore measures the separation of normal vectors from
perturbed copies at that level (`level_weights`), which needs no anomalies.
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

SIGMA_RANGE = (0.1, 5.0)  # in units of the normal data's spread
LEVELS = 8
MAX_STANDARDISED = 5_000  # normal vectors that means, deviations and weights are estimated from
BLOCK_ROWS = 4096


class ScoreNorm(Analyzer):
    """Weighted mean over noise levels of the standardised log norm of sigma times the score."""

    name: ClassVar[str] = "score_norm"

    def __init__(self, denoiser: VectorDenoiser | None = None, levels: Tensor | None = None):
        self._denoiser = denoiser
        # (levels, 4): sigma, mean and standard deviation of the log norm on normal data, weight
        self._levels = torch.empty((0, 4)) if levels is None else levels

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Train the shared denoiser; estimate mean, deviation and weight of the log norm at each level."""
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
        """Return the weighted mean over the levels, in standard deviations above the normal mean."""
        sigmas, means, deviations, weights = self._levels.unbind(1)
        vectors, observed = features.flat, features.flat_observed

        def scores(rows: Tensor) -> Tensor:
            norms = self._log_norms(vectors[rows], None if observed is None else observed[rows], sigmas)
            return ((norms - means) / deviations) @ weights

        positions = torch.arange(len(vectors), device=vectors.device)
        return from_patch_scores(in_blocks(scores, positions, BLOCK_ROWS), features)

    def state(self) -> dict[str, Tensor]:
        """Return the weights of the denoiser and the table of levels."""
        return cpu_state({**self._trained().to_state(), "levels": self._levels})

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the analyzer with the stored denoiser and levels."""
        return cls(VectorDenoiser.from_state(state), state["levels"])

    def to(self, device: torch.device) -> Self:
        """Move the denoiser and the levels to a device."""
        self._trained().to(device)
        self._levels = self._levels.to(device)
        return self

    @torch.no_grad()
    def _log_norms(self, vectors: Tensor, observed: Tensor | None, sigmas: Tensor) -> Tensor:
        """Return log |sigma * score| over the observed entries at each level: (rows, levels)."""
        known = torch.ones_like(vectors, dtype=torch.bool) if observed is None else observed
        vectors = torch.where(known, vectors, 0.0)
        columns = []
        for sigma in sigmas:
            scores = score_of(self._trained(), vectors, sigma.reshape(1, 1))
            columns.append(0.5 * torch.log(sum_observed((sigma * scores).square(), known) + 1e-12))
        return torch.stack(columns, dim=1)

    def _trained(self) -> VectorDenoiser:
        if self._denoiser is None:
            raise RuntimeError("ScoreNorm is not fitted: call fit() first.")
        return self._denoiser


def level_weights(normal: Tensor, perturbed: Tensor) -> Tensor:
    """Return weights (levels,) with sum 1 from log norms (rows, levels) of normal and perturbed data.

    A weight is proportional to the level's AUROC between the two sets minus 0.5, but at least 0.001. The weights are
    equal if no level separates the sets.
    """
    ordered, queries = normal.T.contiguous().sort(dim=1).values, perturbed.T.contiguous()
    below, up_to = (torch.searchsorted(ordered, queries, right=right).float() for right in (False, True))
    auroc = (below + up_to).mean(dim=1) / (2 * len(normal))
    separation = (auroc - 0.5).clamp(min=1e-3)
    return separation / separation.sum()
