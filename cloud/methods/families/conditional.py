"""Conditional reconstruction: what comes back is normal for the sample's own class or operating mode.

Source: class-conditional denoisers as in Dhariwal & Nichol, "Diffusion Models Beat GANs on Image Synthesis" (NeurIPS
2021); for detection, the condition plays the part that the category has in He et al., "DiAD" (AAAI 2024). What is
normal in one mode and not in another is missed by a denoiser that knows only all of them together.
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

DEPTH_SIGMA = 1.0
STEPS = 3
EMBEDDING_COLUMNS = 16  # at most: fewer modes have one column each


class ConditionalReconstruction(DrawnRestoration):
    """Log of the square error after partial diffusion, by a denoiser told the mode.

    Without modes there is one, no embedding, and the workshop's own denoiser. A mode never seen in training gets the
    mean of all embeddings: it is judged as one of the known modes, no matter which.
    """

    name: ClassVar[str] = "conditional"

    def __init__(self) -> None:
        super().__init__()
        self._modes = torch.empty(0, dtype=torch.int64)  # (modes,) ascending
        self._embeddings = torch.empty((0, 0))  # (modes, columns)

    def embedded(self, features: Features) -> Tensor:
        """What the denoiser is told of each vector: (samples * patches, columns)."""
        samples, patches, _ = features.vectors.shape
        unknown = self._embeddings.mean(dim=0).expand(samples, -1)
        modes = _modes(features)
        if modes is None or not len(self._modes):
            return unknown.repeat_interleave(patches, dim=0)
        place = torch.searchsorted(self._modes, modes).clamp(max=len(self._modes) - 1)
        known = (self._modes[place] == modes).unsqueeze(1)
        return torch.where(known, self._embeddings[place], unknown).repeat_interleave(patches, dim=0)

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
        return train_told(features, self.embedded(features), settings, generator, progress)

    def _restorer(self, features: Features) -> Restorer:
        rows, sigmas = features.flat_visible, levels_from(DEPTH_SIGMA, STEPS)
        told = ConditionedDenoiser(self._trained(), self.embedded(features))
        return lambda noise: sample_ddim(told, diffuse(rows, DEPTH_SIGMA, noise[0]), sigmas)

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
    """(modes, columns), of root mean square 1: a column for each mode, or random directions where they are many."""
    if modes <= EMBEDDING_COLUMNS:
        return torch.eye(modes) * math.sqrt(modes)
    return torch.randn((modes, EMBEDDING_COLUMNS), generator=generator)


def train_told(
    features: Features, told: Tensor, settings: OptimizerSettings, generator: torch.Generator, progress: Progress
) -> PreconditionedDenoiser:
    """The denoiser of the features' vectors that is told `told` (samples * patches, columns) of each."""
    rows, observed = features.flat_visible, features.flat_observed
    network = Kind.ROWS.new_network(rows, generator, extra=told.shape[1])
    count = settings.batch_size

    def batch_loss() -> Tensor:
        picked = torch.randint(len(rows), (count,), generator=generator).to(rows.device)
        x0, sigma = rows[picked], draw_levels(count, rows, generator)
        noise = torch.randn(x0.shape, generator=generator).to(x0.device)
        counted = None if observed is None else observed[picked]
        return ConditionedDenoiser(network, told[picked]).loss(diffuse(x0, sigma, noise), sigma, x0, counted)

    train(network, batch_loss, settings, progress=progress)
    return network
