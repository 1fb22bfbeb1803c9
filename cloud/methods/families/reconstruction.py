"""Partial diffusion: noise a sample to a chosen depth, take it back to where normal samples lie, measure the way.

Source: Wyatt et al., "AnoDDPM" (CVPR workshops 2022), here with Gaussian noise; for the way back DDPM (Ho, Jain &
Abbeel, NeurIPS 2020), DDIM (Song, Meng & Ermon, ICLR 2021) or DPM-Solver++ (Lu et al., 2022). What is normal survives
the noise; what is not comes back as something normal, and the difference is the error.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from cloud.methods.features import Features
from cloud.methods.restoration import DrawnRestoration, Restorer, levels_from
from shared.diffusion.samplers import Sampler, sample_ddim, sample_ddpm, sample_dpm_solver
from shared.diffusion.schedules import diffuse

DEPTH_SIGMA = 1.0
STEPS = 3
DDPM_STEPS = 4


class Reconstruction(DrawnRestoration):
    """Log mean square error of what comes back on average, each coordinate in units of its error on normal data.

    `steps`: calls of the denoiser for a draw, 1 to 1000 and more. `depth_sigma`: how deep a sample is noised, in units
    of the normal spread. `draws`: noise draws averaged over; None: 8 for a row or window, 2 for an image's patches.
    """

    name: ClassVar[str] = "reconstruction"
    sampler: ClassVar[Sampler] = staticmethod(sample_dpm_solver)
    default_steps: ClassVar[int] = STEPS

    def __init__(self, *, steps: int | None = None, depth_sigma: float = DEPTH_SIGMA, draws: int | None = None):
        super().__init__()
        self._steps, self._depth_sigma, self._wanted_draws = steps or self.default_steps, depth_sigma, draws

    def _draws(self, features: Features) -> int:
        return self._wanted_draws or super()._draws(features)

    def _restorer(self, features: Features) -> Restorer:
        rows, sigmas = features.flat_visible, levels_from(self._depth_sigma, self._steps)

        def restored(noise: Tensor) -> Tensor:
            noised = diffuse(rows, self._depth_sigma, noise[0])
            return self.sampler(self._trained(), noised, sigmas, noise=lambda step: noise[1 + step])

        return restored

    def _learned(self) -> dict[str, Tensor]:
        plan = torch.tensor([self._steps, self._depth_sigma], dtype=torch.float64)
        return {**super()._learned(), "plan": plan}

    def _adopt(self, state: Mapping[str, Tensor]) -> None:
        super()._adopt(state)
        self._steps, self._depth_sigma = int(state["plan"][0]), float(state["plan"][1])


class DdimReconstruction(Reconstruction):
    """The way back by DDIM, deterministic and of first order."""

    name: ClassVar[str] = "reconstruction_ddim"
    sampler: ClassVar[Sampler] = staticmethod(sample_ddim)


class DdpmReconstruction(Reconstruction):
    """The way back by DDPM's ancestral sampling, its noise fixed like that of the way there."""

    name: ClassVar[str] = "reconstruction_ddpm"
    sampler: ClassVar[Sampler] = staticmethod(sample_ddpm)
    default_steps: ClassVar[int] = DDPM_STEPS

    def _noises_per_draw(self) -> int:
        return 1 + self._steps
