"""Diffusion time estimation by regression, DTE-IG (Livernoche et al., ICLR 2024, section 4.2).

For a known origin at distance r, the noise variance in a noised vector of d dimensions has the posterior
InverseGamma(alpha, beta) with alpha = d / 2 - 1 and beta = r^2 / 2. A network learns beta(x) by maximum likelihood. The
score is the posterior mean; the mode saturates:

    s(x) = E[log sigma^2 | x] = log beta(x) - digamma(alpha)   (log of squared units of the features)
"""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from cloud.methods.base import Analyzer, AnalyzerOutput, cpu_state, from_patch_scores
from cloud.methods.features import Features
from cloud.methods.fit_context import FitContext
from cloud.methods.noised import NoiseNetwork, log_uniform, train_on_noised
from shared.diffusion.training import OptimizerSettings, Progress

SIGMA_RANGE = (0.05, 5.0)  # in units of the normal data's spread
HIDDEN = (256, 256)
MIN_SHAPE = 0.5  # minimum alpha of the inverse gamma distribution
MAX_EXCESS = 3.0  # excess of the predicted log variance beyond which the loss is linear
STEP_SHARE = 0.75  # share of the common training steps
BATCH_SIZE = 256


class DteIg(Analyzer):
    """Posterior mean of the log noise variance, log of squared units of the features."""

    name: ClassVar[str] = "dte_ig"

    def __init__(self, network: NoiseNetwork | None = None):
        self._network = network

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Train the network on noised normal vectors."""
        dim = features.dim
        network = NoiseNetwork(dim, HIDDEN, 1, radial=True, residual=True)
        steps = max(1, round(context.training.steps * STEP_SHARE))
        settings: OptimizerSettings = context.training.model_copy(update={"steps": steps, "batch_size": BATCH_SIZE})
        train_on_noised(
            network,
            features,
            log_uniform(*SIGMA_RANGE),
            lambda means, _, sigma: negative_log_likelihood(means[:, 0], 2.0 * torch.log(sigma), dim).mean(),
            settings,
            generator=context.generator(self.name),
            progress=progress,
        )
        self._network = network

    def score(self, features: Features) -> AnalyzerOutput:
        """Return posterior means of the log noise variance."""
        return from_patch_scores(self._trained().parameters_of(features)[:, 0], features)

    def state(self) -> dict[str, Tensor]:
        """Return the weights and shape of the network."""
        return cpu_state(self._trained().to_state())

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the analyzer with the stored network."""
        return cls(NoiseNetwork.from_state(state))

    def to(self, device: torch.device) -> Self:
        """Move the network to a device."""
        self._trained().to(device)
        return self

    def _trained(self) -> NoiseNetwork:
        if self._network is None:
            raise RuntimeError("DTE-IG is not fitted: call fit() first.")
        return self._network


def negative_log_likelihood(mean_log_variance: Tensor, log_variance: Tensor, dim: int) -> Tensor:
    """Return -log InverseGamma(sigma^2; alpha, beta) / alpha, as a density of log sigma^2: (batch,).

    alpha = dim / 2 - 1 as published, but at least MIN_SHAPE. beta follows from the mean predicted by the network,
    E[log sigma^2] = log beta - digamma(alpha). This mean exists for every alpha; that of sigma^2 only for alpha > 1.
    """
    alpha = log_variance.new_tensor(max(dim / 2 - 1, MIN_SHAPE))
    excess = mean_log_variance - log_variance
    capped = excess.clamp(max=MAX_EXCESS)
    ratio = torch.exp(capped + torch.digamma(alpha)) * (1.0 + excess - capped)  # beta / sigma^2
    return (torch.lgamma(alpha) + ratio) / alpha - excess - torch.digamma(alpha)
