"""Negative log-likelihood under the diffusion model, from the denoising errors of noised copies.

Source: pointwise denoising relation, Kong, Brekelmans & Ver Steeg, "Information-Theoretic Diffusion" (ICLR 2023, eq.
8). For the optimal denoiser D and Gaussian noise of level sigma it is exact:

    -log p(x) = const + integral of E |x - D(x + sigma eps, sigma)|^2 / sigma^2  d log sigma   (nats)

The constant is the same for all x. Between two clusters, where the gradient of the density vanishes, the norm of the
score (`score_norm`) is as small as for normal samples. The denoising error is large there, because the noised copies
are drawn towards either cluster.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor

from cloud.methods.base import Analyzer, AnalyzerOutput, cpu_state, from_patch_scores, in_blocks
from cloud.methods.features import Features
from cloud.methods.fit_context import FitContext
from cloud.methods.masks import sum_observed
from shared.diffusion.denoisers import PreconditionedDenoiser, VectorDenoiser
from shared.diffusion.schedules import geometric_sigmas, per_item
from shared.diffusion.training import Progress

SIGMA_RANGE = (0.1, 5.0)  # in normal standard deviations; the denoiser is not accurate enough below 0.1
LEVELS = 8
DRAWS = 4  # noise draws per level, in pairs of opposite sign whose first-order errors cancel
NOISED_ON_CPU, NOISED_ON_GPU = 1024, 2**17  # noised copies in one call of the denoiser; on a CPU they fit its cache


class DenoisingLikelihood(Analyzer):
    """-log p(x) up to a constant, integrated over LEVELS noise levels with DRAWS draws each."""

    name: ClassVar[str] = "denoising_likelihood"

    def __init__(self, denoiser: VectorDenoiser | None = None, noise: Tensor | None = None):
        self._denoiser = denoiser
        self._noise = torch.empty((0, 0, 0)) if noise is None else noise  # (levels, draws, dim)

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Train the shared denoiser, and draw the noise that is added to every sample."""
        self._denoiser = context.denoiser(features.flat, features.flat_observed, progress)
        shape = (LEVELS, DRAWS // 2, features.dim)
        half = torch.randn(shape, generator=context.generator(self.name))
        self._noise = torch.cat([half, -half], dim=1).to(features.vectors.device)

    def score(self, features: Features) -> AnalyzerOutput:
        """Return -log p(x) in nats, up to a constant, over the observed entries and scaled to all of them."""
        vectors, observed = features.flat, features.flat_observed

        def scores(rows: Tensor) -> Tensor:
            return self._nats(vectors[rows], None if observed is None else observed[rows])

        positions = torch.arange(len(vectors), device=vectors.device)
        noised = NOISED_ON_CPU if vectors.device.type == "cpu" else NOISED_ON_GPU
        block_rows = max(1, noised // max(self._noise[..., 0].numel(), 1))
        return from_patch_scores(in_blocks(scores, positions, block_rows), features)

    def state(self) -> dict[str, Tensor]:
        """Return the weights of the denoiser and the noise draws."""
        return cpu_state({**self._trained().to_state(), "noise": self._noise})

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the analyzer with the stored denoiser and noise draws."""
        return cls(VectorDenoiser.from_state(state), state["noise"])

    def to(self, device: torch.device) -> Self:
        """Move the denoiser and the noise draws to a device."""
        self._trained().to(device)
        self._noise = self._noise.to(device)
        return self

    @property
    def denoisers(self) -> Sequence[PreconditionedDenoiser]:
        """The denoiser."""
        return (self._trained(),)

    @torch.no_grad()
    def _nats(self, vectors: Tensor, observed: Tensor | None) -> Tensor:
        """Return the integral over log sigma for each row, in nats: (rows,)."""
        known = torch.ones_like(vectors, dtype=torch.bool) if observed is None else observed
        clean = torch.where(known, vectors, 0.0)
        sigmas = geometric_sigmas(LEVELS, *SIGMA_RANGE).to(vectors)
        weights = torch.full_like(sigmas, math.log(SIGMA_RANGE[1] / SIGMA_RANGE[0]) / (LEVELS - 1))
        weights[[0, -1]] *= 0.5  # trapezoidal rule
        # All levels and draws are one call: (levels, draws, rows, dim).
        noised = torch.addcmul(clean, per_item(sigmas, self._noise).unsqueeze(2), self._noise.unsqueeze(2))
        denoised = self._trained()(noised.flatten(1, 2), sigmas.unsqueeze(1)).view(noised.shape)
        squares = denoised.sub_(clean).square_().mean(dim=1)
        return sum_observed(torch.einsum("l,lrd->rd", weights / sigmas.square(), squares), known)

    def _trained(self) -> VectorDenoiser:
        if self._denoiser is None:
            raise RuntimeError("DenoisingLikelihood is not fitted: call fit() first.")
        return self._denoiser
