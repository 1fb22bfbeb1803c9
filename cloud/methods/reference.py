"""Reference set of normal vectors for the neighbour methods (kNN, DTE-NP, LOF).

Missing values: distances use the observed entries of a sample, and the square distance is scaled by all entries over
observed ones. If a reference row lacks an observed entry of the sample, the expected square difference to a normal
value, (x - mean)^2 + variance, replaces the difference. A row with few entries is thus rarely a nearest neighbour.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from cloud.methods.features import Features
from shared.diffusion.perturbation import subsample

MAX_REFERENCE = 10_000  # rows, or patches of images
BLOCK_CELLS = 2**23  # float64 numbers held at once: 64 MiB
EXTRA_CANDIDATES = 4


class Neighbours(NamedTuple):
    """Nearest reference rows of each sample, in ascending distance."""

    distances: Tensor  # (samples, count) float64
    rows: Tensor  # (samples, count) int64


@dataclass
class Reference:
    """At most MAX_REFERENCE normal vectors.

    Attributes:
        vectors: (rows, dim) float32, with the mean of the column for missing entries.
        variances: (rows, dim) float32, the variance of the column for missing entries and 0 for others. None: no entry
            is missing.
    """

    vectors: Tensor
    variances: Tensor | None = None

    @classmethod
    def drawn(cls, features: Features, generator: torch.Generator) -> Self:
        """Return a random subset of the vectors of `features`, all of them if they are at most MAX_REFERENCE."""
        rows = subsample(torch.arange(len(features.flat)), MAX_REFERENCE, generator).to(features.flat.device)
        vectors, observed = features.flat[rows], features.flat_observed
        if observed is None:
            return cls(vectors)
        observed = observed[rows]
        count = observed.sum(dim=0).clamp(min=1)
        mean = torch.where(observed, vectors, 0.0).sum(dim=0) / count
        variance = torch.where(observed, vectors - mean, 0.0).square().sum(dim=0) / count
        return cls(torch.where(observed, vectors, mean), torch.where(observed, 0.0, variance))

    def __len__(self) -> int:
        return len(self.vectors)

    def nearest(self, features: Features, count: int) -> Neighbours:
        """Return the `count` nearest rows of each vector of `features`; a smaller reference repeats its farthest one.

        A vector without observed entries has distance 0 to all rows, because there is no evidence against it.
        """
        found = self._search(features.flat, features.flat_observed, min(count, len(self)), leave_out_own=False)
        if len(self) >= count:
            return found
        repeated = (torch.cat([part, part[:, -1:].expand(-1, count - len(self))], dim=1) for part in found)
        return Neighbours(*repeated)

    def nearest_within(self, count: int) -> Neighbours:
        """Return the `count` nearest other rows of each row of the reference; `count` must be below its length."""
        known = None if self.variances is None else self.variances == 0
        return self._search(self.vectors, known, count, leave_out_own=True)

    def state(self) -> dict[str, Tensor]:
        """Return the tensors of the reference."""
        return {"reference": self.vectors, **({} if self.variances is None else {"variances": self.variances})}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the reference that `state` described."""
        return cls(state["reference"], state.get("variances"))

    def to(self, device: torch.device) -> Self:
        """Move to a device, in place; return the reference."""
        self.vectors = self.vectors.to(device)
        self.variances = None if self.variances is None else self.variances.to(device)
        return self

    def _search(self, queries: Tensor, observed: Tensor | None, count: int, *, leave_out_own: bool) -> Neighbours:
        """Find candidates by the expanded square, whose rounding grows with the norms; then compute exact distances."""
        if count < 1:
            raise ValueError(f"Nearest neighbours need more than {len(self)} reference vectors.")
        centre = self.vectors.mean(dim=0)
        centred = self.vectors - centre
        squares = centred.square() + (0.0 if self.variances is None else self.variances)
        candidates = min(count + EXTRA_CANDIDATES, len(self) - leave_out_own)
        block = max(1, BLOCK_CELLS // max(len(self), candidates * queries.shape[1], 1))
        parts = []
        for start in range(0, len(queries), block):
            query = queries[start : start + block] - centre
            weight = None if observed is None else observed[start : start + block].to(query.dtype)
            if weight is None:
                order = torch.addmm(squares.sum(dim=1), query, centred.T, alpha=-2.0)
            else:
                order = torch.addmm(weight @ squares.T, query * weight, centred.T, alpha=-2.0)
            if leave_out_own:
                order.diagonal(start).fill_(torch.inf)
            rows = order.topk(candidates, dim=1, largest=False).indices
            distances = self._distances(queries[start : start + block], weight, rows)
            nearest = distances.sort(dim=1, stable=True)
            parts.append((nearest.values[:, :count], rows.gather(1, nearest.indices[:, :count])))
        if not parts:
            return Neighbours(queries.new_zeros((0, count), dtype=torch.float64), torch.zeros((0, count)).long())
        return Neighbours(torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]))

    def _distances(self, queries: Tensor, weight: Tensor | None, rows: Tensor) -> Tensor:
        """Return distances (queries, candidates) float64 to the given rows."""
        squares = (queries.double().unsqueeze(1) - self.vectors[rows]).square()
        if self.variances is not None:
            squares = squares + self.variances[rows]
        if weight is None:
            return squares.sum(dim=2).sqrt()
        share = weight.mean(dim=1, keepdim=True).double()
        scaled: Tensor = torch.einsum("qcd,qd->qc", squares, weight.double()) / share.clamp(min=1e-9)
        return scaled.sqrt()
