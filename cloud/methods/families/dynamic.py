"""Dynamic-depth reconstruction: partial diffusion to a noise depth chosen for each sample.

Source: Tebbe & Tayyub, "Dynamic Addition of Noise in a Diffusion Model for Anomaly Detection" (CVPR workshops 2024). A
fixed depth is too shallow for large anomalies, which survive it, and too deep for normal samples, which lose detail.
The paper derives the depth from distances to normal features. Here it is the diffusion time that DTE-NP estimates from
those distances (Livernoche et al., ICLR 2024), which has the unit of a noise level and is also the screener's score.

With x^ the restored sample and e_i^2 the mean square error of value i on normal data, the score is

    s(x) = log mean over i of  (x_i - x^_i)^2 / e_i^2   (no unit, 0 for average normal data)
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from cloud.methods.features import Features
from cloud.methods.fit_context import FitContext
from cloud.methods.reference import Reference
from cloud.methods.restoration import (
    DrawnRestoration,
    Errors,
    Restorer,
    errors_over_draws,
    levels_from,
    part,
    prefixed,
)
from shared.diffusion.samplers import sample_ddim
from shared.diffusion.schedules import diffuse, geometric_sigmas
from shared.diffusion.time_estimation import log_posterior_mean
from shared.diffusion.training import Progress

DEPTH_RANGE = (0.25, 4.0)  # in units of the normal spread
DEPTHS = 5  # number of levels, each twice the previous one
STEPS = 3
NEIGHBOURS = 5


class DynamicReconstruction(DrawnRestoration):
    """Log mean square error after partial diffusion to the depth nearest to the estimated noise level."""

    name: ClassVar[str] = "dynamic"

    def __init__(self) -> None:
        super().__init__()
        self._reference: Reference | None = None

    def depths(self, features: Features) -> Tensor:
        """Return the noise depth of each vector, one of the levels in DEPTH_RANGE: (samples * patches,)."""
        return self._depths_from(self._fitted_reference().nearest(features, NEIGHBOURS).distances)

    def _learn(self, features: Features, context: FitContext, generator: torch.Generator, progress: Progress) -> None:
        super()._learn(features, context, generator, progress)
        self._reference = Reference.drawn(features, generator)

    def _restorer(self, features: Features) -> Restorer:
        return self._restorer_from(features, self.depths(features))

    def _errors_of_normals(self, features: Features) -> Errors:
        """Return errors of training samples.

        A sample is not its own neighbour, which would make its depth too shallow.
        """
        distances = self._fitted_reference().nearest(features, NEIGHBOURS + 1).distances
        others = torch.where(distances[:, :1] == 0, distances[:, 1:], distances[:, :-1])
        return errors_over_draws(features, self._noise, self._restorer_from(features, self._depths_from(others)))

    def _depths_from(self, distances: Tensor) -> Tensor:
        levels = geometric_sigmas(DEPTHS, *DEPTH_RANGE).to(distances)
        estimate = log_posterior_mean(distances, self._fitted_reference().vectors.shape[1])
        return levels[(estimate.unsqueeze(1) - levels.log()).abs().argmin(dim=1)]

    def _restorer_from(self, features: Features, depths: Tensor) -> Restorer:
        rows = features.flat_visible
        groups = [(float(depth), (depths == depth).nonzero().squeeze(1)) for depth in torch.unique(depths)]

        def restored(noise: Tensor) -> Tensor:
            clean = torch.empty_like(rows)
            for depth, chosen in groups:
                noised = diffuse(rows[chosen], depth, noise[0])
                clean[chosen] = sample_ddim(self._trained(), noised, levels_from(depth, STEPS))
            return clean

        return restored

    def _learned(self) -> dict[str, Tensor]:
        return {**super()._learned(), **prefixed("reference", self._fitted_reference().state())}

    def _adopt(self, state: Mapping[str, Tensor]) -> None:
        super()._adopt(state)
        self._reference = Reference.from_state(part("reference", state))

    def _move(self, device: torch.device) -> None:
        super()._move(device)
        self._fitted_reference().to(device)

    def _fitted_reference(self) -> Reference:
        if self._reference is None:
            raise RuntimeError("dynamic is not fitted: call fit() first.")
        return self._reference
