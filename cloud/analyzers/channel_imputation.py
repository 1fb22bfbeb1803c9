"""Channels hidden one by one and imputed from all the others, in closed form: which relation between channels broke?

Imputation as the score of a series, in the sense of Chen et al., "ImDiffusion: Imputed Diffusion Models for
Multivariate Time Series Anomaly Detection" (VLDB 2023), with the exact conditional distribution of normally distributed
windows in the place of a sampled one: see `shared.preprocessing.conditional_gaussian`. It needs no training steps, no
noise and no sampling, and what is predicted comes with its variance, so a channel that nothing foretells does not drown
the others.
"""

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloud.analyzers.base import AnalyzerOutput, Features, cpu_state, from_patch_scores
from cloud.analyzers.workshop import Workshop
from shared.diffusion.training import Progress
from shared.preprocessing.conditional_gaussian import ConditionalGaussian

TOP_SHARE = 0.2  # of the channels: an anomaly shows in some of them only
MAX_FITTED = 50_000  # vectors, evenly spaced


class ChannelImputation:
    """Mean surprise of the most surprising fifth of the channels; of a table's row or a patch, of its values."""

    name: ClassVar[str] = "channel_imputation"

    def __init__(self, gaussian: ConditionalGaussian | None = None):
        self._gaussian = gaussian

    def fit(self, features: Features, workshop: Workshop, progress: Progress | None = None) -> None:
        """Take the normal distribution of the windows, and the size of each channel's surprise out of fold."""
        windows, observed = _windows(features)
        picked = np.unique(np.linspace(0, len(windows) - 1, MAX_FITTED).astype(np.intp))
        self._gaussian = ConditionalGaussian.fit(windows[picked], None if observed is None else observed[picked])
        if progress is not None:
            progress(1.0)

    def score(self, features: Features) -> AnalyzerOutput:
        """Surprises; a channel of which nothing was observed has none."""
        gaussian = self._fitted()
        windows, observed = _windows(features)
        if observed is not None:
            windows = gaussian.impute(windows, observed)
        surprises = gaussian.surprises(windows, observed)
        count = max(1, round(TOP_SHARE * gaussian.groups))
        top = np.partition(surprises, gaussian.groups - count, axis=1)[:, gaussian.groups - count :].mean(axis=1)
        return from_patch_scores(torch.from_numpy(top).float().to(features.vectors.device), features)

    def state(self) -> dict[str, Tensor]:
        """The distribution of normal windows."""
        arrays = self._fitted().to_arrays()
        return cpu_state({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()})

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The analyzer with this distribution."""
        try:
            return cls(ConditionalGaussian.from_arrays({name: value.numpy() for name, value in state.items()}))
        except ValueError as error:
            raise RuntimeError(f"{cls.name}: {error}") from None

    def to(self, device: torch.device) -> Self:
        """Stays on the CPU, where its one matrix product is quick enough; answers on the features' device."""
        return self

    def _fitted(self) -> ConditionalGaussian:
        if self._gaussian is None:
            raise RuntimeError("ChannelImputation is not fitted: call fit() first.")
        return self._gaussian


def _windows(features: Features) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """Windows (n, length, channels) with what was observed; vectors count as windows of one time point."""
    values, observed = features.windows, features.windows_observed
    if values is None:
        values = features.flat.unsqueeze(1)
        observed = None if features.observed is None else features.observed.flatten(0, 1).unsqueeze(1)
    array = values.detach().cpu().double().numpy()
    if observed is None or bool(observed.all()):
        return array, None
    return array, observed.cpu().numpy()
