"""Exact nearest neighbours in blocks of bounded memory."""

import torch
from torch import Tensor

BLOCK_CELLS = 2**24  # query-reference pairs held at once: 64 MiB of float32
EXTRA_CANDIDATES = 4


def nearest_distances(queries: Tensor, reference: Tensor, count: int, *, own_rows: Tensor | None = None) -> Tensor:
    """Return Euclidean distances (queries, count), ascending, from each query to its nearest rows of `reference`.

    Candidates come from |q|^2 - 2 q.r + |r|^2, whose rounding error grows with the norms. Their distances are then
    recomputed from the differences: equal vectors are at distance 0, and results do not depend on the block size.
    Raises ValueError for a reference without another row.

    Args:
        queries: (queries, dim).
        reference: (rows, dim).
        count: Number of neighbours. If the reference has fewer rows, the farthest one is repeated.
        own_rows: (queries,) int64, the row that each query was made from, which is not its neighbour (leave one out);
            -1 for none.
    """
    rows = len(reference) - (0 if own_rows is None else 1)
    if rows < 1:
        raise ValueError(f"Nearest neighbours need more than {len(reference)} reference rows.")
    found = min(count, rows)
    candidates = min(found + EXTRA_CANDIDATES, rows)
    centre = reference.mean(0)
    centred = reference - centre
    square_norms = centred.square().sum(1)
    block = max(1, BLOCK_CELLS // len(reference))
    parts = []
    for start in range(0, len(queries), block):
        query = queries[start : start + block]
        order = torch.addmm(square_norms, query - centre, centred.T, alpha=-2.0)  # |q|^2 does not change the order
        if own_rows is not None:
            own = own_rows[start : start + block]
            has_own = (own >= 0).nonzero().squeeze(1)
            order[has_own, own[has_own]] = torch.inf
        nearest = order.topk(candidates, dim=1, largest=False).indices
        distances = (query.unsqueeze(1) - reference[nearest]).norm(dim=2)
        parts.append(distances.sort(dim=1).values[:, :found])
    result = torch.cat(parts) if parts else queries.new_zeros((0, found))
    if found < count:
        result = torch.cat([result, result[:, -1:].expand(-1, count - found)], dim=1)
    return result
