"""Channel imputation: the conditional surprise of each channel of a window given the others.

Imputation error as the anomaly score of a series follows Chen et al., "ImDiffusion: Imputed Diffusion Models for
Multivariate Time Series Anomaly Detection" (VLDB 2023). Here the exact conditional distribution of a normal
distribution replaces the sampled one (`shared.preprocessing.conditional_gaussian`). The method needs no training steps,
noise or sampling, and each prediction has its variance, so unpredictable channels do not dominate the score.

The surprise of a channel is log(1 + 3 m / limit), with m the mean square deviation of its observed values from their
conditional mean, in units of the conditional covariance, and limit the 90 % quantile of m on normal data. The score is
the mean of the highest surprises, over TOP_SHARE of the channels.

The features of a window contain its surprises, each standardised on normal windows, so a channel whose relations drift
in normal operation has less weight. The method learns nothing from windows, and a screener can be distilled from it.
For table rows and image patches, the values of a vector stand in for the channels.
"""

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloud.methods.base import Analyzer, AnalyzerOutput, cpu_state, from_patch_scores
from cloud.methods.features import Features, ViewFeatures
from cloud.methods.fit_context import FitContext
from shared.diffusion.training import Progress
from shared.preprocessing.conditional_gaussian import ConditionalGaussian

TOP_SHARE = 0.2  # share of the channels averaged: an anomaly affects only some of them
MAX_FITTED = 50_000  # normal vectors, evenly spaced


class ChannelImputation(Analyzer):
    """Mean over the fifth of the channels, or values of a vector, with the highest surprise."""

    name: ClassVar[str] = "channel_imputation"
    is_quick: ClassVar[bool] = True

    def __init__(self, gaussian: ConditionalGaussian | None = None):
        self._gaussian = gaussian

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Fit the normal distribution and the surprise limits to rows or patches; do nothing for windows."""
        self._gaussian = None
        if not isinstance(features, ViewFeatures):
            rows, observed = _rows(features)
            picked = np.unique(np.linspace(0, len(rows) - 1, MAX_FITTED).astype(np.intp))
            self._gaussian = ConditionalGaussian.fit(rows[picked], None if observed is None else observed[picked])
        if progress is not None:
            progress(1.0)

    def score(self, features: Features) -> AnalyzerOutput:
        """Return the mean of the highest surprises; 0 for a channel without an observed value."""
        if isinstance(features, ViewFeatures):
            surprises = features.flat[:, features.surprise_columns]
        else:
            surprises = torch.from_numpy(self._surprises(features)).float().to(features.vectors.device)
        count = max(1, round(TOP_SHARE * surprises.shape[1]))
        return from_patch_scores(surprises.topk(count, dim=1).values.mean(dim=1), features)

    def state(self) -> dict[str, Tensor]:
        """Return the arrays of the normal distribution; empty for windows."""
        arrays = {} if self._gaussian is None else self._gaussian.to_arrays()
        return cpu_state({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()})

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the analyzer with the stored distribution. Raises RuntimeError if the arrays do not fit."""
        if not state:
            return cls()
        try:
            return cls(ConditionalGaussian.from_arrays({name: value.numpy() for name, value in state.items()}))
        except ValueError as error:
            raise RuntimeError(f"{cls.name}: {error}") from None

    def to(self, device: torch.device) -> Self:
        """Return the analyzer unchanged.

        It computes on the CPU, a single matrix product, and copies the scores to the device of the features.
        """
        return self

    def _surprises(self, features: Features) -> NDArray[np.float64]:
        if self._gaussian is None:
            raise RuntimeError("ChannelImputation is not fitted on vectors: call fit() first.")
        rows, observed = _rows(features)
        if observed is not None:
            rows = self._gaussian.impute(rows, observed)
        return self._gaussian.surprises(rows, observed)


def _rows(features: Features) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """Return the vectors as windows of one time point (n, 1, dim), and their mask (None: complete)."""
    rows = features.flat.unsqueeze(1).detach().cpu().double().numpy()
    observed = features.flat_observed
    if observed is None or bool(observed.all()):
        return rows, None
    return rows, observed.unsqueeze(1).cpu().numpy()
