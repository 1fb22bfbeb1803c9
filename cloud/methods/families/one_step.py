"""One-step reconstruction: one call of the denoiser at a low and one at a high noise level.

Source: Zhang, Wang, Zeng, Wu & Jiang, "DiffusionAD: Norm-guided One-step Denoising Diffusion for Anomaly Detection"
(2023), section 3.3.

The two calls replace the sampling steps. High noise removes large anomalies, but also normal detail; low noise keeps
both. The estimate from low noise is therefore moved by the difference between the estimate from high noise and the
sample:

    x^ = D(x + sigma_low eps) + w (D(x + sigma_high eps) - x)

With e_i^2 the mean square error of value i on normal data, the score is

    s(x) = log mean over i of  (x_i - x^_i)^2 / e_i^2   (no unit, 0 for average normal data)
"""

from typing import ClassVar

import torch
from torch import Tensor

from cloud.methods.features import Features
from cloud.methods.restoration import DrawnRestoration, Restorer
from shared.diffusion.schedules import diffuse

LOW_SIGMA = 0.5  # in units of the normal spread
HIGH_SIGMA = 1.0
NORM_GUIDANCE = 1.0  # w; weight of the difference between high-noise estimate and sample


class OneStepReconstruction(DrawnRestoration):
    """Log mean square error of x^ = D(x + low noise) + w (D(x + high noise) - x)."""

    name: ClassVar[str] = "one_step"

    def _restorer(self, features: Features) -> Restorer:
        rows = features.flat_visible

        def denoised(sigma: float, noise: Tensor) -> Tensor:
            levels = torch.full((len(rows), 1), sigma, dtype=rows.dtype, device=rows.device)
            clean: Tensor = self._trained()(diffuse(rows, sigma, noise), levels)
            return clean

        def restored(noise: Tensor) -> Tensor:
            return denoised(LOW_SIGMA, noise[0]) + NORM_GUIDANCE * (denoised(HIGH_SIGMA, noise[0]) - rows)

        return restored
