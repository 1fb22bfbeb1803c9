"""One-step reconstruction: one call of the denoiser in place of a walk, at a low and a high level of noise.

Source: Zhang, Wang, Zeng, Wu & Jiang, "DiffusionAD: Norm-guided One-step Denoising Diffusion for Anomaly Detection"
(2023), section 3.3. From much noise large anomalies are restored, and normal detail is lost; from little noise it is
the other way round. So the restoration from the low level is moved towards that from the high one.
"""

from typing import ClassVar

import torch
from torch import Tensor

from cloud.methods.features import Features
from cloud.methods.restoration import DrawnRestoration, Restorer
from shared.diffusion.schedules import diffuse

LOW_SIGMA = 0.5
HIGH_SIGMA = 1.0
NORM_GUIDANCE = 1.0  # how far the difference of the high restoration from the sample adds to that of the low one


class OneStepReconstruction(DrawnRestoration):
    """Log of the square error of D(x + low noise) + w (D(x + high noise) - x)."""

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
