"""Principal component classifier (Shyu et al., ICDM workshop 2003).

Source: Shyu, Chen, Sarinnapakorn & Chang, "A Novel Anomaly Detection Scheme Based on Principal Component Classifier".

With y_i the i-th principal component of x, major and minor ones, and v_i its variance on normal data, the score is

    s(x) = 1/2 log(mean over i of  y_i^2 / v_i)   (log of standard deviations)

With all components this is the log of the Mahalanobis distance, up to a constant. Variances have a floor, so that an
exact dependence between features in little data does not dominate the score.
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

VARIANCE_FLOOR = 0.01  # minimum variance of a component, in squared units of the features


class PrincipalComponents(Analyzer):
    """Log root mean square of the principal components, each in its own standard deviations."""

    name: ClassVar[str] = "pca"
    is_quick: ClassVar[bool] = True

    def __init__(self, mean: Tensor | None = None, components: Tensor | None = None, variances: Tensor | None = None):
        self._mean = torch.empty(0) if mean is None else mean  # (dim,)
        self._components = torch.empty((0, 0)) if components is None else components  # (dim, dim), one per column
        self._variances = torch.empty(0) if variances is None else variances  # (dim,), ascending

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Estimate mean and covariance from pairs of observed entries.

        At most MAX_REFERENCE normal vectors are used.
        """
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
        """Return log deviations; for vectors with missing entries, those of the observed entries alone."""
        vectors, observed = features.flat_visible, features.flat_observed
        missing = torch.zeros(0) if observed is None else ~observed
        block = max(1, BLOCK_CELLS // max(vectors.shape[1] ** (1 if observed is None else 2), 1))

        def squares(rows: Tensor) -> Tensor:
            deviations = vectors[rows] - self._mean
            if observed is None:
                return self._mean_square(deviations)
            known = observed[rows].float().mean(dim=1)
            return self._mean_square(self._imputed(deviations, missing[rows])) / known.clamp(min=1e-9)

        means = in_blocks(squares, torch.arange(len(vectors), device=vectors.device), block)
        return from_patch_scores(0.5 * torch.log(means + 1e-6), features)

    def state(self) -> dict[str, Tensor]:
        """Return mean, components and variances."""
        return cpu_state({"mean": self._mean, "components": self._components, "variances": self._variances})

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the analyzer with the stored mean, components and variances."""
        return cls(state["mean"], state["components"], state["variances"])

    def to(self, device: torch.device) -> Self:
        """Move mean, components and variances to a device."""
        self._mean, self._components = self._mean.to(device), self._components.to(device)
        self._variances = self._variances.to(device)
        return self

    def _mean_square(self, deviations: Tensor) -> Tensor:
        """Return the mean over components of the square divided by the variance: (rows,)."""
        return ((deviations @ self._components).square() / self._variances).mean(dim=1)

    def _imputed(self, deviations: Tensor, missing: Tensor) -> Tensor:
        """Return deviations (rows, dim) with each missing entry at its conditional mean.

        The Mahalanobis distance is then that of the observed entries under their own covariance.
        """
        precision = (self._components / self._variances) @ self._components.T
        known = torch.where(missing, 0.0, deviations)
        both = missing.unsqueeze(2) & missing.unsqueeze(1)
        system = torch.where(both, precision, torch.eye(len(precision), device=precision.device))
        right_side = torch.where(missing, -(known @ precision), 0.0)
        return torch.where(missing, torch.linalg.solve(system, right_side), deviations)
