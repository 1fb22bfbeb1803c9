"""Base of methods that restore a sample to a normal one, and score it by the error of the restoration.

The error of each coordinate is divided by its size on normal data, so that coordinates that are hard to restore in any
sample do not dominate. Missing entries start at 0, the mean, and their errors do not count.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from cloud.methods.base import Analyzer, AnalyzerOutput, cpu_state, from_patch_scores
from cloud.methods.features import Features
from cloud.methods.fit_context import FitContext
from shared.diffusion.denoisers import PreconditionedDenoiser, VectorDenoiser
from shared.diffusion.schedules import edm_sigmas
from shared.diffusion.training import OptimizerSettings, Progress

Restorer = Callable[[Tensor], Tensor]

BLOCK_ROWS = 4096
MAX_SINGLE_METHOD_STEPS = 600  # training steps of a network that only one method uses
MAX_STANDARDISED = 5_000  # vectors that the sizes of normal errors are measured on
DEVIATION_FLOOR = 1e-2
ERROR_FLOOR = 1e-6
SIGMA_MIN = 0.05  # lowest noise level of the denoiser in `FitContext`
DRAWS = 8
PATCH_DRAWS = 2  # the many patches of an image average over the noise


@dataclass(frozen=True)
class Errors:
    """Errors of a restoration.

    Attributes:
        squares: (samples, patches, coordinates), square errors.
        observed: Bool in that shape, false for coordinates without a meaningful error. None: all have one.
        restored: (samples, patches, dim), the mean restoration, from methods that work on the vectors.
    """

    squares: Tensor
    observed: Tensor | None = None
    restored: Tensor | None = None

    def sizes(self) -> Tensor:
        """Return the root mean square error of each coordinate (coordinates,); 1 if it was never observed."""
        squares = self.squares.flatten(0, 1)
        if self.observed is None:
            return squares.mean(dim=0).sqrt().clamp(min=DEVIATION_FLOOR)
        weights = self.observed.flatten(0, 1).to(squares.dtype)
        counts = weights.sum(dim=0)
        means = (squares * weights).sum(dim=0) / counts.clamp(min=1.0)
        return torch.where(counts > 0, means.sqrt().clamp(min=DEVIATION_FLOOR), 1.0)

    def log_means(self, sizes: Tensor) -> Tensor:
        """Return the log mean square error in units of `sizes`: (samples * patches,).

        Vectors without observed coordinates get 0, the level of an average normal sample.
        """
        ratios = self.squares.flatten(0, 1) / sizes.square()
        if self.observed is None:
            return torch.log(ratios.mean(dim=1) + ERROR_FLOOR)
        weights = self.observed.flatten(0, 1).to(ratios.dtype)
        counts = weights.sum(dim=1)
        means = (ratios * weights).sum(dim=1) / counts.clamp(min=1.0)
        return torch.log(torch.where(counts > 0, means, 1.0) + ERROR_FLOOR)


class Restoration(Analyzer):
    """Analyzer whose score is the log mean square error of a restoration, which subclasses define."""

    explains: ClassVar[bool] = True

    def __init__(self) -> None:
        self._sizes = torch.empty(0)  # (coordinates,), of errors on normal data

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Learn to restore, then measure the size of each coordinate's error on normal data."""
        generator = context.generator(self.name)
        report = progress or (lambda share: None)
        with torch.enable_grad():
            self._learn(features, context, generator, lambda share: report(min(share, 0.99)))
        samples, patches, _ = features.vectors.shape
        count = max(1, MAX_STANDARDISED // patches)
        rows = torch.randperm(samples, generator=generator)[:count].to(features.vectors.device)
        with torch.no_grad():
            parts = [
                self._errors_of_normals(features.at(block)) for block in torch.split(rows, _samples_per_block(features))
            ]
        self._sizes = _joined(parts).sizes()
        report(1.0)

    @torch.no_grad()
    def score(self, features: Features) -> AnalyzerOutput:
        """Return log errors, and the mean restorations if the method makes them."""
        if not len(features):
            return from_patch_scores(features.vectors[:, :, 0].flatten(), features)
        scores, restored = [], []
        for block in features.blocks(_samples_per_block(features)):
            errors = self._errors(block)
            scores.append(errors.log_means(self._sizes))
            if errors.restored is not None:
                restored.append(errors.restored)
        return from_patch_scores(torch.cat(scores), features, torch.cat(restored) if restored else None)

    def state(self) -> dict[str, Tensor]:
        """Return the learned tensors and the sizes of normal errors. Raises RuntimeError before `fit`."""
        if not len(self._sizes):
            raise RuntimeError(f"{self.name} is not fitted: call fit() first.")
        return cpu_state({**self._learned(), "sizes": self._sizes})

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the analyzer that `state` described."""
        analyzer = cls()
        analyzer._adopt(state)
        analyzer._sizes = state["sizes"]
        return analyzer

    def to(self, device: torch.device) -> Self:
        """Move networks and tensors to a device, in place; return the analyzer."""
        self._sizes = self._sizes.to(device)
        self._move(device)
        return self

    @abstractmethod
    def _learn(self, features: Features, context: FitContext, generator: torch.Generator, progress: Progress) -> None:
        """Learn from the features of normal samples."""

    @abstractmethod
    def _errors(self, features: Features) -> Errors:
        """Restore a block of samples."""

    def _errors_of_normals(self, features: Features) -> Errors:
        """Restore training samples; differs from `_errors` for methods that must leave a sample out."""
        return self._errors(features)

    @abstractmethod
    def _learned(self) -> dict[str, Tensor]:
        """Return the learned tensors, for `_adopt`."""

    @abstractmethod
    def _adopt(self, state: Mapping[str, Tensor]) -> None:
        """Load the tensors that `_learned` returned."""

    @abstractmethod
    def _move(self, device: torch.device) -> None:
        """Move the learned tensors and networks to a device."""


class DrawnRestoration(Restoration):
    """Restoration by a denoiser of the vectors, from several noise draws that are the same for every sample."""

    def __init__(self) -> None:
        super().__init__()
        self._denoiser: PreconditionedDenoiser | None = None
        self._noise = torch.empty((0, 0, 0))  # (draws, noises per draw, dim)

    @abstractmethod
    def _restorer(self, features: Features) -> Restorer:
        """Return a function from one draw (noises per draw, dim) to restored vectors (samples * patches, dim)."""

    def _learn(self, features: Features, context: FitContext, generator: torch.Generator, progress: Progress) -> None:
        self._denoiser = self._train(features, context, generator, progress)
        shape = (self._noises_per_draw(), features.dim)
        self._noise = opposite_pairs(self._draws(features), shape, generator).to(features.vectors.device)

    def _train(
        self, features: Features, context: FitContext, generator: torch.Generator, progress: Progress
    ) -> PreconditionedDenoiser:
        return context.denoiser(features.flat, features.flat_observed, progress)

    def _draws(self, features: Features) -> int:
        return DRAWS if features.vectors.shape[1] == 1 else PATCH_DRAWS

    def _noises_per_draw(self) -> int:
        return 1

    def _errors(self, features: Features) -> Errors:
        return errors_over_draws(features, self._noise, self._restorer(features))

    def _learned(self) -> dict[str, Tensor]:
        return {**prefixed("denoiser", self._trained().to_state()), "noise": self._noise}

    def _adopt(self, state: Mapping[str, Tensor]) -> None:
        self._denoiser, self._noise = VectorDenoiser.from_state(part("denoiser", state)), state["noise"]

    def _move(self, device: torch.device) -> None:
        self._trained().to(device)
        self._noise = self._noise.to(device)

    def _trained(self) -> PreconditionedDenoiser:
        if self._denoiser is None:
            raise RuntimeError(f"{self.name} is not fitted: call fit() first.")
        return self._denoiser


def errors_over_draws(features: Features, noise: Tensor, restore: Restorer) -> Errors:
    """Return the errors of the mean restoration over the draws of `noise` (draws, ...).

    This is the error of the mean, not the mean of errors: the scatter of single draws is no evidence about the sample.
    """
    rows = features.flat_visible
    total = torch.zeros_like(rows)
    for draw in noise:
        total += restore(draw)
    mean = total / len(noise)
    shape = features.vectors.shape
    return Errors((rows - mean).square().reshape(shape), features.observed, mean.reshape(shape))


def opposite_pairs(draws: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return standard normal noise (draws, *shape) in pairs of opposite draws, so that its mean is 0."""
    half = torch.randn(((draws + 1) // 2, *shape), generator=generator)
    return torch.cat([half, -half])[:draws]


def levels_from(depth_sigma: float, steps: int, sigma_min: float = SIGMA_MIN) -> Tensor:
    """Return noise levels (steps + 1,) float64 of a sampler: from `depth_sigma` down in EDM's spacing, then 0."""
    if steps == 1:
        return torch.tensor([depth_sigma, 0.0], dtype=torch.float64)
    descending = edm_sigmas(steps, min(sigma_min, depth_sigma), depth_sigma).flip(0)
    return torch.cat([descending, descending.new_zeros(1)])


def short_training(context: FitContext) -> OptimizerSettings:
    """Return the training settings of a network that only one method uses: those of the context with fewer steps."""
    max_steps = max(1, round(MAX_SINGLE_METHOD_STEPS * context.effort))
    return context.training.model_copy(update={"steps": min(context.training.steps, max_steps)})


def mean_over(squares: Tensor, counted: Tensor | None) -> Tensor:
    """Return the mean of `squares` over the entries where `counted`, bool in the same shape, is true; None: all."""
    mean: Tensor = squares.mean() if counted is None else (squares * counted).sum() / counted.sum().clamp(min=1)
    return mean


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of a component with prefixed names, which keeps the components of an analyzer apart."""
    return {f"{prefix}.{name}": value for name, value in state.items()}


def part(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state that `prefixed` prefixed. Raises KeyError if there is none."""
    found = {name.removeprefix(f"{prefix}."): value for name, value in state.items() if name.startswith(f"{prefix}.")}
    if not found:
        raise KeyError(prefix)
    return found


def _samples_per_block(features: Features) -> int:
    return max(1, BLOCK_ROWS // features.vectors.shape[1])


def _joined(parts: list[Errors]) -> Errors:
    observed = [part.observed for part in parts if part.observed is not None]
    return Errors(torch.cat([part.squares for part in parts]), torch.cat(observed) if observed else None)
