"""Partial diffusion: noise a sample to a chosen depth, take it back to where normal samples lie, measure the way.

Source: Wyatt et al., "AnoDDPM" (CVPR workshops 2022), with DDIM (Song, Meng & Ermon, ICLR 2021) for the way back. What
is normal survives the noise; what is not comes back as something normal, and the difference is the error.
"""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from cloud.analyzers.base import AnalyzerOutput, Features, cpu_state, from_patch_scores
from cloud.analyzers.workshop import Workshop
from shared.diffusion.denoisers import VectorDenoiser
from shared.diffusion.distillation import subsample
from shared.diffusion.samplers import sample_ddim
from shared.diffusion.schedules import diffuse, edm_sigmas, sampling_steps
from shared.diffusion.training import Progress

DEPTH_SIGMA = 1.0
SIGMA_RANGE = (0.05, 1.5)
STEPS = 3
DRAWS = 8
PATCH_DRAWS = 2  # an image's many patches average over the noise by themselves
BLOCK_ROWS = 4096
MAX_STANDARDISED = 5_000


class Reconstruction:
    """Log of the square error averaged over noise draws, each coordinate in units of its error on normal data."""

    name: ClassVar[str] = "reconstruction"

    def __init__(
        self, denoiser: VectorDenoiser | None = None, noise: Tensor | None = None, deviations: Tensor | None = None
    ):
        self._denoiser = denoiser
        self._noise = torch.empty((0, 0)) if noise is None else noise  # (draws, dim): the same for every sample
        self._deviations = torch.empty(0) if deviations is None else deviations  # (dim,)
        self._sigmas = sampling_steps(edm_sigmas(64, *SIGMA_RANGE), DEPTH_SIGMA, STEPS)

    def fit(self, features: Features, workshop: Workshop, progress: Progress | None = None) -> None:
        """Train a denoiser, draw the noise, and take the size of each coordinate's error on normal data."""
        normals = features.flat
        generator = workshop.generator(self.name)
        self._denoiser = workshop.denoiser(normals, progress)
        draws = DRAWS if features.vectors.shape[1] == 1 else PATCH_DRAWS
        half = torch.randn((draws // 2, normals.shape[1]), generator=generator)
        self._noise = torch.cat([half, -half]).to(normals.device)  # opposite pairs: their mean carries no offset
        picked = subsample(normals, MAX_STANDARDISED, generator)
        _, square_errors = self._reconstruct(picked)
        self._deviations = square_errors.mean(dim=0).sqrt().clamp(min=1e-2)

    def score(self, features: Features) -> AnalyzerOutput:
        """Log errors, and the mean reconstructions."""
        parts = [self._reconstruct(rows) for rows in torch.split(features.flat, BLOCK_ROWS)]
        reconstruction = torch.cat([mean for mean, _ in parts]).reshape(features.vectors.shape)
        square_errors = torch.cat([square for _, square in parts]) / self._deviations.square()
        errors = square_errors.mean(dim=1)
        return from_patch_scores(torch.log(errors + 1e-6), features, reconstruction)

    def state(self) -> dict[str, Tensor]:
        """The denoiser, the noise and the sizes of normal errors."""
        own = {"noise": self._noise, "deviations": self._deviations}
        return cpu_state({**self._trained().to_state(), **own})

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The analyzer with this denoiser, noise and sizes of errors."""
        return cls(VectorDenoiser.from_state(state), state["noise"], state["deviations"])

    def to(self, device: torch.device) -> Self:
        """Move the network to a device."""
        self._trained().to(device)
        self._noise, self._deviations = self._noise.to(device), self._deviations.to(device)
        return self

    @torch.no_grad()
    def _reconstruct(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Means over the draws, both (rows, dim): what comes back, and the square of its error."""
        total, square_errors = torch.zeros_like(vectors), torch.zeros_like(vectors)
        for draw in self._noise:
            back = sample_ddim(self._trained(), diffuse(vectors, float(self._sigmas[0]), draw), self._sigmas)
            total += back
            square_errors += (vectors - back).square()
        return total / len(self._noise), square_errors / len(self._noise)

    def _trained(self) -> VectorDenoiser:
        if self._denoiser is None:
            raise RuntimeError("Reconstruction is not fitted: call fit() first.")
        return self._denoiser
