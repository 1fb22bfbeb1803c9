"""Each channel of a window told from all the others: which channels broke?

Imputation as the score of a series, in the sense of Chen et al., "ImDiffusion: Imputed Diffusion Models for
Multivariate Time Series Anomaly Detection" (VLDB 2023), with the exact conditional distribution of normally distributed
windows in the place of a sampled one: see `shared.preprocessing.conditional_gaussian`. It needs no training steps, no
noise and no sampling, and what is predicted comes with its variance, so a channel that nothing foretells does not drown
the others.

How unexpected each channel is stands among a window's graph inputs already, in deviations of its own on normal windows:
a channel whose relations drift in normal operation is weighed down. So this method has nothing to learn from windows,
and a screener can be distilled from it. Of a table's row or an image's patch the values are taken for the channels.
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

TOP_SHARE = 0.2  # of the channels: an anomaly shows in some of them only
MAX_FITTED = 50_000  # vectors, evenly spaced


class ChannelImputation(Analyzer):
    """Mean surprise of the most surprising fifth of the channels; of a table's row or a patch, of its values."""

    name: ClassVar[str] = "channel_imputation"
    is_quick: ClassVar[bool] = True

    def __init__(self, gaussian: ConditionalGaussian | None = None):
        self._gaussian = gaussian

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Nothing, of windows; else take the normal distribution of the vectors, and the usual size of surprises."""
        self._gaussian = None
        if not isinstance(features, ViewFeatures):
            rows, observed = _rows(features)
            picked = np.unique(np.linspace(0, len(rows) - 1, MAX_FITTED).astype(np.intp))
            self._gaussian = ConditionalGaussian.fit(rows[picked], None if observed is None else observed[picked])
        if progress is not None:
            progress(1.0)

    def score(self, features: Features) -> AnalyzerOutput:
        """Surprises; a channel of which nothing was observed has none."""
        if isinstance(features, ViewFeatures):
            surprises = features.flat[:, features.surprise_columns]
        else:
            surprises = torch.from_numpy(self._surprises(features)).float().to(features.vectors.device)
        count = max(1, round(TOP_SHARE * surprises.shape[1]))
        return from_patch_scores(surprises.topk(count, dim=1).values.mean(dim=1), features)

    def state(self) -> dict[str, Tensor]:
        """The distribution of normal vectors; nothing, where windows bring their surprises with them."""
        arrays = {} if self._gaussian is None else self._gaussian.to_arrays()
        return cpu_state({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()})

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The analyzer with this distribution."""
        if not state:
            return cls()
        try:
            return cls(ConditionalGaussian.from_arrays({name: value.numpy() for name, value in state.items()}))
        except ValueError as error:
            raise RuntimeError(f"{cls.name}: {error}") from None

    def to(self, device: torch.device) -> Self:
        """Stays on the CPU, where its one matrix product is quick enough; answers on the features' device."""
        return self

    def _surprises(self, features: Features) -> NDArray[np.float64]:
        if self._gaussian is None:
            raise RuntimeError("ChannelImputation is not fitted on vectors: call fit() first.")
        rows, observed = _rows(features)
        if observed is not None:
            rows = self._gaussian.impute(rows, observed)
        return self._gaussian.surprises(rows, observed)


def _rows(features: Features) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """Vectors as windows of one time point (n, 1, dim), with what was observed."""
    rows = features.flat.unsqueeze(1).detach().cpu().double().numpy()
    observed = features.flat_observed
    if observed is None or bool(observed.all()):
        return rows, None
    return rows, observed.unsqueeze(1).cpu().numpy()
