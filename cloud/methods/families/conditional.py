"""Conditional reconstruction: partial diffusion conditioned on the class or operating mode.

Source: class-conditional denoisers as in Dhariwal & Nichol, "Diffusion Models Beat GANs on Image Synthesis" (NeurIPS
2021). For anomaly detection, the mode has the role of the category in He et al., "DiAD" (AAAI 2024).

With x^ the restored sample and e_i^2 the mean square error of value i on normal data, the score is

    s(x) = log mean over i of  (x_i - x^_i)^2 / e_i^2   (no unit, 0 for average normal data)

An unconditional denoiser misses values that are normal in another mode only.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from cloud.methods.canvas import Kind, draw_levels
from cloud.methods.conditioned import ConditionedDenoiser
from cloud.methods.features import Features, VectorFeatures
from cloud.methods.fit_context import FitContext
from cloud.methods.restoration import DrawnRestoration, Restorer, levels_from, short_training
from shared.diffusion.denoisers import PreconditionedDenoiser
from shared.diffusion.samplers import sample_ddim
from shared.diffusion.schedules import diffuse
from shared.diffusion.training import OptimizerSettings, Progress, train

DEPTH_SIGMA = 1.0  # in units of the normal spread
STEPS = 3
EMBEDDING_COLUMNS = 16  # maximum; fewer modes have one column each


class ConditionalReconstruction(DrawnRestoration):
    """Log mean square error after partial diffusion, with a denoiser conditioned on the mode.

    Without modes, or with a single mode, the shared denoiser is used and there is no embedding. A mode that was not in
    the training data gets the mean of all embeddings, and the denoiser answers with a mixture of the known modes.
    """

    name: ClassVar[str] = "conditional"

    def __init__(self) -> None:
        super().__init__()
        self._modes = torch.empty(0, dtype=torch.int64)  # (modes,) ascending
        self._embeddings = torch.empty((0, 0))  # (modes, columns)

    def condition(self, features: Features) -> Tensor:
        """Return the mode embedding of each vector: (samples * patches, columns)."""
        samples, patches, _ = features.vectors.shape
        unknown = self._embeddings.mean(dim=0).expand(samples, -1)
        modes = _modes(features)
        if modes is None or not len(self._modes):
            return unknown.repeat_interleave(patches, dim=0)
        index = torch.searchsorted(self._modes, modes).clamp(max=len(self._modes) - 1)
        known = (self._modes[index] == modes).unsqueeze(1)
        return torch.where(known, self._embeddings[index], unknown).repeat_interleave(patches, dim=0)

    def _train(
        self, features: Features, context: FitContext, generator: torch.Generator, progress: Progress
    ) -> PreconditionedDenoiser:
        device = features.vectors.device
        given = _modes(features)
        modes = torch.unique(torch.zeros(1, dtype=torch.int64, device=device) if given is None else given)
        self._modes = modes
        self._embeddings = torch.empty((len(modes), 0), device=device)
        if len(modes) == 1:
            return super()._train(features, context, generator, progress)
        self._embeddings = embeddings(len(modes), generator).to(device)
        settings = short_training(context)
        return train_conditioned(features, self.condition(features), settings, generator, progress)

    def _restorer(self, features: Features) -> Restorer:
        rows, sigmas = features.flat_visible, levels_from(DEPTH_SIGMA, STEPS)
        denoiser = ConditionedDenoiser(self._trained(), self.condition(features))
        return lambda noise: sample_ddim(denoiser, diffuse(rows, DEPTH_SIGMA, noise[0]), sigmas)

    def _learned(self) -> dict[str, Tensor]:
        return {**super()._learned(), "modes": self._modes, "embeddings": self._embeddings}

    def _adopt(self, state: Mapping[str, Tensor]) -> None:
        super()._adopt(state)
        self._modes, self._embeddings = state["modes"], state["embeddings"]

    def _move(self, device: torch.device) -> None:
        super()._move(device)
        self._modes, self._embeddings = self._modes.to(device), self._embeddings.to(device)


def _modes(features: Features) -> Tensor | None:
    return features.modes if isinstance(features, VectorFeatures) else None


def embeddings(modes: int, generator: torch.Generator) -> Tensor:
    """Return mode embeddings (modes, columns) of root mean square 1.

    Up to EMBEDDING_COLUMNS modes are one-hot with one column each; more modes are random directions.
    """
    if modes <= EMBEDDING_COLUMNS:
        return torch.eye(modes) * math.sqrt(modes)
    return torch.randn((modes, EMBEDDING_COLUMNS), generator=generator)


def train_conditioned(
    features: Features, condition: Tensor, settings: OptimizerSettings, generator: torch.Generator, progress: Progress
) -> PreconditionedDenoiser:
    """Return a trained denoiser of the vectors with further inputs `condition` (vectors, columns)."""
    rows, observed = features.flat_visible, features.flat_observed
    network = Kind.ROWS.new_network(rows, generator, extra=condition.shape[1])
    count = settings.batch_size

    def batch_loss() -> Tensor:
        picked = torch.randint(len(rows), (count,), generator=generator).to(rows.device)
        x0, sigma = rows[picked], draw_levels(count, rows, generator)
        noise = torch.randn(x0.shape, generator=generator).to(x0.device)
        counted = None if observed is None else observed[picked]
        return ConditionedDenoiser(network, condition[picked]).loss(diffuse(x0, sigma, noise), sigma, x0, counted)

    train(network, batch_loss, settings, progress=progress)
    return network
