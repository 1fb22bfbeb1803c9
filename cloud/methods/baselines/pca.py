"""Baseline: principal components (Shyu et al., "A Novel Anomaly Detection Scheme Based on Principal Component
Classifier", ICDM workshop 2003): squares of all components, major and minor, each in units of its variance.

With all components this is the Mahalanobis distance. Minor components are floored, so that an exact dependence between
features in little data is not taken for a law.
"""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from cloud.methods.base import Analyzer, AnalyzerOutput, cpu_state, from_patch_scores, in_blocks
from cloud.methods.features import Features
from cloud.methods.fit_context import FitContext
from cloud.methods.reference import BLOCK_CELLS, MAX_REFERENCE
from shared.diffusion.perturbation import subsample
from shared.diffusion.training import Progress

VARIANCE_FLOOR = 0.01  # of a component, in square units of the features' spread


class PrincipalComponents(Analyzer):
    """Log of the root mean square of a vector's components, each in its deviations on normal data."""

    name: ClassVar[str] = "pca"
    is_quick: ClassVar[bool] = True

    def __init__(self, mean: Tensor | None = None, components: Tensor | None = None, variances: Tensor | None = None):
        self._mean = torch.empty(0) if mean is None else mean  # (dim,)
        self._components = torch.empty((0, 0)) if components is None else components  # (dim, dim), in columns
        self._variances = torch.empty(0) if variances is None else variances  # (dim,), ascending

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Mean and covariance of at most MAX_REFERENCE normal vectors, from the pairs of entries that are observed."""
        count = len(features.flat)
        rows = subsample(torch.arange(count), MAX_REFERENCE, context.generator(self.name)).to(features.flat.device)
        normals, observed = features.flat_visible[rows].double(), features.flat_observed
        known = torch.ones_like(normals) if observed is None else observed[rows].double()
        mean = normals.sum(dim=0) / known.sum(dim=0).clamp(min=1)
        centred = (normals - mean) * known
        covariance = centred.T @ centred / (known.T @ known).clamp(min=1)
        variances, components = torch.linalg.eigh(covariance)
        self._mean, self._components = mean.float(), components.float().contiguous()
        self._variances = variances.clamp(min=VARIANCE_FLOOR).float()
        if progress is not None:
            progress(1.0)

    def score(self, features: Features) -> AnalyzerOutput:
        """Log deviations. Of a vector with missing entries, those of the observed ones among themselves."""
        vectors, observed = features.flat_visible, features.flat_observed
        missing = torch.zeros(0) if observed is None else ~observed
        block = max(1, BLOCK_CELLS // max(vectors.shape[1] ** (1 if observed is None else 2), 1))

        def squares(rows: Tensor) -> Tensor:
            deviations = vectors[rows] - self._mean
            if observed is None:
                return self._mean_square(deviations)
            known = observed[rows].float().mean(dim=1)
            return self._mean_square(self._completed(deviations, missing[rows])) / known.clamp(min=1e-9)

        means = in_blocks(squares, torch.arange(len(vectors), device=vectors.device), block)
        return from_patch_scores(0.5 * torch.log(means + 1e-6), features)

    def state(self) -> dict[str, Tensor]:
        """Mean, components and variances."""
        return cpu_state({"mean": self._mean, "components": self._components, "variances": self._variances})

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The analyzer with these components."""
        return cls(state["mean"], state["components"], state["variances"])

    def to(self, device: torch.device) -> Self:
        """Move the components to a device."""
        self._mean, self._components = self._mean.to(device), self._components.to(device)
        self._variances = self._variances.to(device)
        return self

    def _mean_square(self, deviations: Tensor) -> Tensor:
        """Mean square of the components (rows,), each over its variance."""
        return ((deviations @ self._components).square() / self._variances).mean(dim=1)

    def _completed(self, deviations: Tensor, missing: Tensor) -> Tensor:
        """Deviations (rows, dim) with those missing put where they add the least: their mean given the observed ones.

        The Mahalanobis distance is then that of the observed entries under their own covariance.
        """
        precision = (self._components / self._variances) @ self._components.T
        known = torch.where(missing, 0.0, deviations)
        both = missing.unsqueeze(2) & missing.unsqueeze(1)
        system = torch.where(both, precision, torch.eye(len(precision), device=precision.device))
        pull = torch.where(missing, -(known @ precision), 0.0)
        return torch.where(missing, torch.linalg.solve(system, pull), deviations)
