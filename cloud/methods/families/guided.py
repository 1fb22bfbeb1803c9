"""Input-guided reconstruction: on the way back from noise, each step is pulled towards the sample itself.

Source: Mousakhan, Brox & Tayyub, "Anomaly Detection with Conditioned Denoising Diffusion Models" (DDAD, 2023).
There the noise estimate becomes eps - w sqrt(1 - alpha_bar) (y_t - x_t), y_t being the target y noised with eps.
For the clean sample that is D + w sigma^2 / (1 + sigma^2) (y - D): a denoiser, which any sampler can walk by.
"""

from typing import ClassVar

from torch import Tensor

from cloud.methods.features import Features
from cloud.methods.restoration import DrawnRestoration, Restorer, levels_from
from shared.diffusion.denoisers import Denoiser
from shared.diffusion.samplers import sample_ddim
from shared.diffusion.schedules import diffuse

DEPTH_SIGMA = 2.0
STEPS = 3
GUIDANCE = 0.7  # w: 0 is plain reconstruction, and much above 1 brings back the sample, whatever it is


class GuidedDenoiser:
    """A denoiser whose clean sample is pulled towards `target`, the more the higher the noise."""

    def __init__(self, denoiser: Denoiser, target: Tensor, guidance: float):
        self._denoiser, self._target, self._guidance = denoiser, target, guidance

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The clean sample of x (batch, dim) at levels (batch, 1), between the denoiser's and the target."""
        denoised = self._denoiser(x, sigma)
        pull = (self._guidance * sigma**2 / (1.0 + sigma**2)).clamp(max=1.0)
        return denoised + pull * (self._target - denoised)


class GuidedReconstruction(DrawnRestoration):
    """Log of the square error of what comes back under guidance.

    Guidance keeps apart from the error what merely varies between normal samples: noise this deep would lose it.
    """

    name: ClassVar[str] = "guided"

    def _restorer(self, features: Features) -> Restorer:
        rows, sigmas = features.flat_visible, levels_from(DEPTH_SIGMA, STEPS)
        guided = GuidedDenoiser(self._trained(), rows, GUIDANCE)
        return lambda noise: sample_ddim(guided, diffuse(rows, DEPTH_SIGMA, noise[0]), sigmas)
