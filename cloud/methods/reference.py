"""Normal vectors that samples are compared with: what the neighbour methods (kNN, DTE-NP, LOF) share.

Missing values. A sample is compared in the entries that were observed of it, and the square distance scaled by all
entries over observed ones. Where a reference row lacks an entry that the sample has, the square difference expected of
a normal value stands in, (x - mean)^2 + variance, so that a row with little in it is nobody's nearest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from cloud.methods.features import Features
from shared.diffusion.perturbation import subsample

MAX_REFERENCE = 10_000  # rows; for images, patches
BLOCK_CELLS = 2**23  # float64 numbers held at once: 64 MiB
EXTRA_CANDIDATES = 4


class Neighbours(NamedTuple):
    """The nearest reference rows of each sample, nearest first."""

    distances: Tensor  # (samples, count) float64
    rows: Tensor  # (samples, count) int64


@dataclass
class Reference:
    """At most MAX_REFERENCE normal vectors.

    `vectors`: (rows, dim) float32, missing entries filled with the mean of their column. `variances`: of the same
    shape, the variance of the column where an entry is missing and 0 elsewhere; None where nothing is.
    """

    vectors: Tensor
    variances: Tensor | None = None

    @classmethod
    def drawn(cls, features: Features, generator: torch.Generator) -> Self:
        """A random part of the vectors of `features`, all of them where they are no more than MAX_REFERENCE."""
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
        """The `count` nearest rows of each vector of `features`; a smaller reference repeats its farthest one.

        A vector of which nothing was observed is at distance 0 from all: nothing speaks against it.
        """
        found = self._search(features.flat, features.flat_observed, min(count, len(self)), leave_out_own=False)
        if len(self) >= count:
            return found
        repeated = (torch.cat([part, part[:, -1:].expand(-1, count - len(self))], dim=1) for part in found)
        return Neighbours(*repeated)

    def nearest_within(self, count: int) -> Neighbours:
        """The `count` rows nearest to each row of the reference, itself left out. `count` must be below its length."""
        known = None if self.variances is None else self.variances == 0
        return self._search(self.vectors, known, count, leave_out_own=True)

    def state(self) -> dict[str, Tensor]:
        """The tensors of the reference, as they are."""
        return {"reference": self.vectors, **({} if self.variances is None else {"variances": self.variances})}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The reference that `state` described."""
        return cls(state["reference"], state.get("variances"))

    def to(self, device: torch.device) -> Self:
        """Move to a device, in place."""
        self.vectors = self.vectors.to(device)
        self.variances = None if self.variances is None else self.variances.to(device)
        return self

    def _search(self, queries: Tensor, observed: Tensor | None, count: int, *, leave_out_own: bool) -> Neighbours:
        """Candidates from the expanded square, whose rounding grows with the norms; then their distances anew."""
        if count < 1:
            raise ValueError(f"No neighbour to look for among {len(self)} reference vectors.")
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
        """Distances (queries, candidates) float64 to the given rows."""
        squares = (queries.double().unsqueeze(1) - self.vectors[rows]).square()
        if self.variances is not None:
            squares = squares + self.variances[rows]
        if weight is None:
            return squares.sum(dim=2).sqrt()
        share = weight.mean(dim=1, keepdim=True).double()
        scaled: Tensor = torch.einsum("qcd,qd->qc", squares, weight.double()) / share.clamp(min=1e-9)
        return scaled.sqrt()
