"""Missing values in analyzers: a missing entry is 0, the mean of normal values, and only observed ones are scored."""

import torch
from torch import Tensor

from cloud.methods.base import Features


def flat_observed(features: Features) -> Tensor | None:
    """The mask of all patches of all samples: (samples * patches, dim) bool, or None where nothing is missing."""
    return None if features.observed is None else features.observed.reshape(-1, features.vectors.shape[2])


def flat_visible(features: Features) -> Tensor:
    """All patches of all samples, (samples * patches, dim), with 0 for whatever is missing."""
    observed = flat_observed(features)
    return features.flat if observed is None else torch.where(observed, features.flat, 0.0)


def sum_observed(entries: Tensor, observed: Tensor) -> Tensor:
    """Sums (rows,) over the observed of `entries` (rows, dim), scaled to all of them: by dim / observed.

    A row of which nothing was observed gives 0: nothing speaks against it.
    """
    kept = torch.where(observed, entries, 0.0).sum(dim=1)
    return kept * (observed.shape[1] / observed.sum(dim=1).clamp(min=1))
