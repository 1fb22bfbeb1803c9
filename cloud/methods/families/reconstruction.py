"""Reconstruction by partial diffusion: the difference between a sample and its denoised copy.

Source: Wyatt et al., "AnoDDPM" (CVPR workshops 2022), here with Gaussian noise. The samplers are DDPM (Ho, Jain &
Abbeel, NeurIPS 2020), DDIM (Song, Meng & Ermon, ICLR 2021) and DPM-Solver++ (Lu et al., 2022).

A sample is noised to level DEPTH_SIGMA and denoised. Normal structure survives the noise, while anomalous structure is
replaced by a normal one. With x^ the mean over noise draws and e_i^2 the mean square error of value i on normal data,
the score is

    s(x) = log mean over i of  (x_i - x^_i)^2 / e_i^2   (no unit, 0 for average normal data)
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from cloud.methods.features import Features
from cloud.methods.restoration import DrawnRestoration, Restorer, levels_from
from shared.diffusion.samplers import Sampler, sample_ddim, sample_ddpm, sample_dpm_solver
from shared.diffusion.schedules import diffuse

DEPTH_SIGMA = 1.0  # in units of the normal spread
STEPS = 3
DDPM_STEPS = 4


class Reconstruction(DrawnRestoration):
    """Log mean square error of the mean reconstruction, in units of the errors on normal data.

    Args:
        steps: Calls of the denoiser per draw, at least 1. None: the default of the class.
        depth_sigma: Noise level that samples are noised to, in units of the normal spread.
        draws: Noise draws to average over. None: 8 for a row or window, 2 for the patches of an image.
    """

    name: ClassVar[str] = "reconstruction"
    sampler: ClassVar[Sampler] = staticmethod(sample_dpm_solver)
    default_steps: ClassVar[int] = STEPS

    def __init__(self, *, steps: int | None = None, depth_sigma: float = DEPTH_SIGMA, draws: int | None = None):
        super().__init__()
        self._steps, self._depth_sigma, self._chosen_draws = steps or self.default_steps, depth_sigma, draws

    def _draws(self, features: Features) -> int:
        return self._chosen_draws or super()._draws(features)

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
    """Reconstruction with DDIM, a deterministic first-order sampler."""

    name: ClassVar[str] = "reconstruction_ddim"
    sampler: ClassVar[Sampler] = staticmethod(sample_ddim)


class DdpmReconstruction(Reconstruction):
    """Reconstruction with the ancestral sampler of DDPM; its noise is drawn once, at the fit."""

    name: ClassVar[str] = "reconstruction_ddpm"
    sampler: ClassVar[Sampler] = staticmethod(sample_ddpm)
    default_steps: ClassVar[int] = DDPM_STEPS

    def _noises_per_draw(self) -> int:
        return 1 + self._steps
