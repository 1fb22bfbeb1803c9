"""Diffusion time estimation by classification, DTE-C (Livernoche et al., ICLR 2024, section 4.2).

A network classifies the noise level of noised normal vectors into B bins. With p_b the predicted probabilities and m
the posterior mean of the level, the score is the log odds of m:

    m(x) = sum over b of  p_b(x) b / (B - 1),    s(x) = log m(x) - log(1 - m(x))

The mode, which is the most likely bin, saturates. `dte_c_published` has the settings of the paper's released code,
except that the number of training steps is bounded.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from cloud.methods.base import Analyzer, AnalyzerOutput, cpu_state, from_patch_scores
from cloud.methods.features import Features
from cloud.methods.fit_context import FitContext
from cloud.methods.noised import NoiseNetwork, linear, log_uniform, train_on_noised
from shared.diffusion.training import OptimizerSettings, Progress

SIGMA_RANGE = (0.05, 5.0)  # log-uniform schedule, in units of the normal data's spread
TIMESTEPS = 400  # linear schedule, as published
BETA_END = 0.01  # linear schedule, as published
MAX_RATE_FACTOR = 10.0  # bound on the increase of the learning rate when epochs are cut


@dataclass(frozen=True)
class Recipe:
    """Network and training parameters of DTE-C."""

    schedule: Literal["linear", "log_uniform"] = "log_uniform"
    bins: int = 7
    hidden: tuple[int, ...] = (256, 256)
    radial: bool = True
    dropout: float = 0.0
    weight_decay: float = 0.0
    softmax_twice: bool = False  # as in the released code, which passes probabilities to the cross entropy
    batch_size: int = 256
    learning_rate: float = 1e-3
    ema_decay: float = 0.995
    step_share: float = 0.75  # share of the common training steps
    epochs: int | None = None  # maximum; None: no limit

    def optimizer(self, training: OptimizerSettings, rows: int) -> OptimizerSettings:
        """Return the common training settings with the batch size, learning rate and steps of this recipe.

        If the epochs need more steps than there are, the learning rate is raised by the same factor, at most by
        MAX_RATE_FACTOR.
        """
        steps = max(1, round(training.steps * self.step_share))
        epoch_steps = steps if self.epochs is None else self.epochs * math.ceil(rows / self.batch_size)
        changes = {
            "steps": min(steps, epoch_steps),
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate * min(max(epoch_steps / steps, 1.0), MAX_RATE_FACTOR),
            "ema_decay": self.ema_decay,
        }
        return training.model_copy(update=changes)

    def loss(self, network: NoiseNetwork, logits: Tensor, position: Tensor) -> Tensor:
        """Return the cross entropy of the bins plus the L2 penalty on the weights."""
        outputs = logits.softmax(dim=1) if self.softmax_twice else logits
        loss = torch.nn.functional.cross_entropy(outputs, (position * self.bins).long())
        if self.weight_decay > 0.0:
            loss = loss + 0.5 * self.weight_decay * sum(weight.square().sum() for weight in network.parameters())
        return loss


PUBLISHED = Recipe(
    schedule="linear",
    bins=7,
    hidden=(256, 512, 256),
    radial=False,
    dropout=0.5,
    weight_decay=5e-4,
    softmax_twice=True,
    batch_size=64,
    learning_rate=1e-4,
    ema_decay=0.0,
    step_share=1.25,
    epochs=400,
)


class DteC(Analyzer):
    """Log odds of the posterior mean noise level, scaled to [0, 1] over the bins."""

    name: ClassVar[str] = "dte_c"
    recipe: ClassVar[Recipe] = Recipe()

    def __init__(self, recipe: Recipe | None = None, network: NoiseNetwork | None = None):
        self._recipe = recipe or self.recipe
        self._network = network

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Train the network on noised normal vectors."""
        recipe, dim = self._recipe, features.dim
        schedule = log_uniform(*SIGMA_RANGE) if recipe.schedule == "log_uniform" else linear(TIMESTEPS, BETA_END)
        network = NoiseNetwork(dim, recipe.hidden, recipe.bins, radial=recipe.radial, dropout=recipe.dropout)
        train_on_noised(
            network,
            features,
            schedule,
            lambda logits, position, _: recipe.loss(network, logits, position),
            recipe.optimizer(context.training, len(features.flat)),
            generator=context.generator(self.name),
            progress=progress,
        )
        self._network = network

    def score(self, features: Features) -> AnalyzerOutput:
        """Return the log odds of the mean level: same order as the mean, but better resolved near 0 and 1."""
        return from_patch_scores(mean_log_odds(self._trained().parameters_of(features)), features)

    def state(self) -> dict[str, Tensor]:
        """Return the weights and shape of the network."""
        return cpu_state(self._trained().to_state())

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the analyzer with the stored network."""
        return cls(network=NoiseNetwork.from_state(state))

    def to(self, device: torch.device) -> Self:
        """Move the network to a device."""
        self._trained().to(device)
        return self

    def _trained(self) -> NoiseNetwork:
        if self._network is None:
            raise RuntimeError("DTE-C is not fitted: call fit() first.")
        return self._network


class PublishedDteC(DteC):
    """DTE-C with the settings of the paper's released code, for comparison."""

    name: ClassVar[str] = "dte_c_published"
    recipe: ClassVar[Recipe] = PUBLISHED


def mean_log_odds(logits: Tensor) -> Tensor:
    """Return log(m / (1 - m)) for the posterior mean m in [0, 1] of `logits` (batch, bins): (batch,).

    Computed in the log domain. Bins are evenly spaced from 0 to 1, in log sigma or in timesteps depending on the
    schedule.
    """
    level = torch.linspace(0.0, 1.0, logits.shape[1], device=logits.device)
    above = torch.logsumexp(logits[:, 1:] + torch.log(level[1:]), dim=1)
    below = torch.logsumexp(logits[:, :-1] + torch.log1p(-level[:-1]), dim=1)
    return above - below
