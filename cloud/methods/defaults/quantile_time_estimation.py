"""Diffusion time estimation without a network, on the normal scores of each feature's quantiles.

The distances of `time_estimation` are dominated by features whose few large values make most of their variance: their
many small values lie so close together that relations among them do not count. Here each feature is first mapped to
the normal distribution by its quantiles (van der Waerden's normal scores; Conover & Iman, "Rank Transformations as a
Bridge Between Parametric and Nonparametric Statistics", The American Statistician, 1981). Quantiles alone would treat a
value far outside like the largest one seen, so the scale is linear beyond the range seen, with slope 1 in the units of
the features.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloud.methods.base import AnalyzerOutput, cpu_state
from cloud.methods.features import Features
from cloud.methods.fit_context import FitContext
from cloud.methods.neighbours import NeighbourAnalyzer
from cloud.methods.reference import Reference
from shared.diffusion.perturbation import subsample
from shared.diffusion.time_estimation import log_posterior_mean
from shared.diffusion.training import Progress

KNOTS = 1000  # values kept of each feature
MIN_SPREAD = 0.05  # standard deviation; a feature with less is constant up to rounding, and keeps its deviations
MAX_FITTED = 100_000  # normal vectors that the quantiles are taken of


@dataclass
class QuantileScale:
    """Scale on which each feature of normal vectors has a normal distribution.

    Attributes:
        values: (dim, knots) float32, ascending values of each feature; the largest is repeated where there are fewer.
        quantiles: (dim, knots) float32, the place of each value on the scale; 0 for the median.
    """

    values: Tensor
    quantiles: Tensor

    @classmethod
    def fit(cls, vectors: Tensor, observed: Tensor | None) -> Self:
        """Fit on the observed entries of normal vectors (n, dim)."""
        columns = vectors.double().cpu().numpy().T
        known = np.ones(columns.shape, dtype=np.bool_) if observed is None else observed.cpu().numpy().T
        scales = [_knots(column[mask]) for column, mask in zip(columns, known, strict=True)]
        size = max(2, *(len(values) for values, _ in scales))
        padded = np.stack([[np.pad(part, (0, size - len(part)), mode="edge") for part in scale] for scale in scales])
        values, quantiles = torch.from_numpy(padded.astype(np.float32)).to(vectors.device).unbind(1)
        return cls(values.contiguous(), quantiles.contiguous())

    def of(self, vectors: Tensor) -> Tensor:
        """Return vectors (n, dim) on this scale: interpolated between the values, linear beyond them."""
        columns = vectors.T.contiguous()
        inside = torch.clamp(columns, self.values[:, :1], self.values[:, -1:])
        after = torch.searchsorted(self.values, inside).clamp(min=1)
        start, end = self.values.gather(1, after - 1), self.values.gather(1, after)
        share = (inside - start) / (end - start).clamp(min=torch.finfo(torch.float32).tiny)
        quantiles = torch.lerp(self.quantiles.gather(1, after - 1), self.quantiles.gather(1, after), share)
        return (quantiles + (columns - inside)).T.contiguous()


class QuantileTimeEstimation(NeighbourAnalyzer):
    """Log posterior mean of the noise level, given the 5 nearest reference vectors on the scale of quantiles."""

    name: ClassVar[str] = "quantile_time_estimation"

    def __init__(self, reference: Reference | None = None, scale: QuantileScale | None = None):
        super().__init__(reference)
        self._scale = scale or QuantileScale(torch.empty((0, 2)), torch.empty((0, 2)))

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Learn the quantiles, and store a random subset of the normal vectors on their scale as the reference."""
        rows = torch.arange(len(features.flat))
        rows = subsample(rows, MAX_FITTED, context.generator(f"{self.name}.scale")).to(features.flat.device)
        observed = features.flat_observed
        self._scale = QuantileScale.fit(features.flat[rows], None if observed is None else observed[rows])
        super().fit(self._on_scale(features), context, progress)

    def score(self, features: Features) -> AnalyzerOutput:
        """Return log noise levels, log of units of the scale."""
        return super().score(self._on_scale(features))

    def patch_scores(self, distances: Tensor, dim: int) -> Tensor:
        """Return log noise levels, log of units of the scale."""
        return log_posterior_mean(distances, dim)

    def state(self) -> dict[str, Tensor]:
        """Return the reference vectors and the scale."""
        return {**super().state(), **cpu_state({"values": self._scale.values, "quantiles": self._scale.quantiles})}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the analyzer with the stored reference vectors and scale."""
        return cls(Reference.from_state(state), QuantileScale(state["values"], state["quantiles"]))

    def to(self, device: torch.device) -> Self:
        """Move the reference and the scale to a device."""
        self._scale = QuantileScale(self._scale.values.to(device), self._scale.quantiles.to(device))
        return super().to(device)

    def _on_scale(self, features: Features) -> Features:
        """Return the features with their vectors on the scale of quantiles."""
        vectors = self._scale.of(features.flat).view(features.vectors.shape)
        if features.observed is not None:
            vectors = torch.where(features.observed, vectors, 0.0)
        return replace(features, vectors=vectors)


def _knots(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return at most KNOTS different values, ascending, and their places on the scale.

    Equal values share the mean of their ranks. Of many values those are kept that are evenly spaced on the scale.
    """
    if not len(values) or values.std() < MIN_SPREAD:
        return np.full(1, values.mean() if len(values) else 0.0), np.zeros(1)
    distinct, counts = np.unique(values, return_counts=True)
    ranks = torch.from_numpy((np.cumsum(counts) - counts / 2) / len(values))
    places = torch.special.ndtri(ranks).numpy()
    if len(distinct) > KNOTS:
        kept = np.unique(np.searchsorted(places, np.linspace(places[0], places[-1], KNOTS)))
        distinct, places = distinct[kept], places[kept]
    return distinct, places
