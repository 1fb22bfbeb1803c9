"""Missing values in analyzers: missing entries are 0, the mean of normal values, and are not scored."""

import torch
from torch import Tensor


def sum_observed(entries: Tensor, observed: Tensor) -> Tensor:
    """Return sums (rows,) over the observed of `entries` (rows, dim), scaled by dim / observed.

    A row without observed entries gives 0, because there is no evidence against it.
    """
    kept = torch.where(observed, entries, 0.0).sum(dim=1)
    return kept * (observed.shape[1] / observed.sum(dim=1).clamp(min=1))
