"""Dynamic depth: each sample is noised as deep as it looks anomalous.

Source: Tebbe & Tayyub, "Dynamic Addition of Noise in a Diffusion Model for Anomaly Detection" (CVPR workshops 2024).
A fixed depth is too shallow for large anomalies, which survive it, and too deep for normal samples, which lose their
detail. There the depth comes from distances to normal features; here from the diffusion time that DTE-NP estimates
from them (Livernoche et al., ICLR 2024), which is a depth in the very unit of noise: what the screener computes too.
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

DEPTH_RANGE = (0.25, 4.0)
DEPTHS = 5  # each twice the last
STEPS = 3
NEIGHBOURS = 5


class DynamicReconstruction(DrawnRestoration):
    """Log of the square error after partial diffusion to the depth nearest each sample's estimated noise level."""

    name: ClassVar[str] = "dynamic"

    def __init__(self) -> None:
        super().__init__()
        self._reference: Reference | None = None

    def depths(self, features: Features) -> Tensor:
        """The depth of each vector (samples * patches,): one of the levels in DEPTH_RANGE."""
        return self._depths_at(self._known().nearest(features, NEIGHBOURS).distances)

    def _learn(self, features: Features, context: FitContext, generator: torch.Generator, progress: Progress) -> None:
        super()._learn(features, context, generator, progress)
        self._reference = Reference.drawn(features, generator)

    def _restorer(self, features: Features) -> Restorer:
        return self._restorer_from(features, self.depths(features))

    def _errors_of_normals(self, features: Features) -> Errors:
        """A normal in the reference is no neighbour of its own, or it would look shallower than a fresh one."""
        distances = self._known().nearest(features, NEIGHBOURS + 1).distances
        others = torch.where(distances[:, :1] == 0, distances[:, 1:], distances[:, :-1])
        return errors_over_draws(features, self._noise, self._restorer_from(features, self._depths_at(others)))

    def _depths_at(self, distances: Tensor) -> Tensor:
        levels = geometric_sigmas(DEPTHS, *DEPTH_RANGE).to(distances)
        estimate = log_posterior_mean(distances, self._known().vectors.shape[1])
        return levels[(estimate.unsqueeze(1) - levels.log()).abs().argmin(dim=1)]

    def _restorer_from(self, features: Features, depths: Tensor) -> Restorer:
        rows = features.flat_visible
        members = [(float(depth), (depths == depth).nonzero().squeeze(1)) for depth in torch.unique(depths)]

        def restored(noise: Tensor) -> Tensor:
            back = torch.empty_like(rows)
            for depth, chosen in members:
                noised = diffuse(rows[chosen], depth, noise[0])
                back[chosen] = sample_ddim(self._trained(), noised, levels_from(depth, STEPS))
            return back

        return restored

    def _learned(self) -> dict[str, Tensor]:
        return {**super()._learned(), **prefixed("reference", self._known().state())}

    def _adopt(self, state: Mapping[str, Tensor]) -> None:
        super()._adopt(state)
        self._reference = Reference.from_state(part("reference", state))

    def _move(self, device: torch.device) -> None:
        super()._move(device)
        self._known().to(device)

    def _known(self) -> Reference:
        if self._reference is None:
            raise RuntimeError("dynamic is not fitted: call fit() first.")
        return self._reference
