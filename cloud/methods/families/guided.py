"""Input-guided reconstruction: partial diffusion with each step guided towards the sample.

Source: Mousakhan, Brox & Tayyub, "Anomaly Detection with Conditioned Denoising Diffusion Models" (DDAD, 2023).

In the paper the noise estimate becomes eps - w sqrt(1 - alpha_bar) (y_t - x_t), with y_t the target y noised with eps.
In terms of the clean sample this is a denoiser, which any sampler can use:

    D'(x, sigma) = D + w sigma^2 / (1 + sigma^2) (y - D),    D = D(x, sigma)

With x^ the restored sample and e_i^2 the mean square error of value i on normal data, the score is

    s(x) = log mean over i of  (x_i - x^_i)^2 / e_i^2   (no unit, 0 for average normal data)
"""

from typing import ClassVar

from torch import Tensor

from cloud.methods.features import Features
from cloud.methods.restoration import DrawnRestoration, Restorer, levels_from
from shared.diffusion.denoisers import Denoiser
from shared.diffusion.samplers import sample_ddim
from shared.diffusion.schedules import diffuse

DEPTH_SIGMA = 2.0  # in units of the normal spread
STEPS = 3
GUIDANCE = 0.7  # w; 0 is plain reconstruction, and values far above 1 restore the sample itself


class GuidedDenoiser:
    """Denoiser whose output is moved towards `target`, further at higher noise levels."""

    def __init__(self, denoiser: Denoiser, target: Tensor, guidance: float):
        self._denoiser, self._target, self._guidance = denoiser, target, guidance

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the guided estimate of the clean sample for x (batch, dim) at levels sigma (batch, 1)."""
        denoised = self._denoiser(x, sigma)
        weight = (self._guidance * sigma**2 / (1.0 + sigma**2)).clamp(max=1.0)
        return denoised + weight * (self._target - denoised)


class GuidedReconstruction(DrawnRestoration):
    """Log mean square error of the guided reconstruction.

    Guidance restores normal variation between samples, which noise of this depth removes, and keeps it out of the
    error.
    """

    name: ClassVar[str] = "guided"

    def _restorer(self, features: Features) -> Restorer:
        rows, sigmas = features.flat_visible, levels_from(DEPTH_SIGMA, STEPS)
        guided = GuidedDenoiser(self._trained(), rows, GUIDANCE)
        return lambda noise: sample_ddim(guided, diffuse(rows, DEPTH_SIGMA, noise[0]), sigmas)
