"""Missing values in analyzers: a missing entry is 0, the mean of normal values, and only observed ones are scored."""

import torch
from torch import Tensor


def sum_observed(entries: Tensor, observed: Tensor) -> Tensor:
    """Sums (rows,) over the observed of `entries` (rows, dim), scaled to all of them: by dim / observed.

    A row of which nothing was observed gives 0: nothing speaks against it.
    """
    kept = torch.where(observed, entries, 0.0).sum(dim=1)
    return kept * (observed.shape[1] / observed.sum(dim=1).clamp(min=1))
