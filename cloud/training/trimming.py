"""Trimming of the training part: removal of the least likely samples before training.

Normal data from the field contains anomalies. The density at a row is estimated from the distance to its k-th nearest
other row (Loftsgaarden & Quesenberry, "A nonparametric estimate of a multivariate density function", 1965). With a
small k, the members of a cluster of anomalies are each other's neighbours. Therefore k is NEIGHBOURS_PER_REMOVED times
the number of rows to remove: if there are no more anomalies than that, most neighbours of each are normal rows.

Each operating mode is trimmed separately, since a rare mode is not an anomaly. The held-out part is never trimmed:
without its largest scores p-values would be too small, and the false-alarm rate would exceed its target (Bashari, Sesia
& Romano, "Robust conformal outlier detection under contaminated reference data", 2025). See
docs/methods/robust_training.md.
"""

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloud.training.modalities import training_modality
from cloud.training.samples import MIN_TRAIN, Split
from shared.diffusion.perturbation import subsample
from shared.errors import SettingsError
from shared.modalities import fit_preprocessor
from shared.modality import Modality
from shared.preprocessing import columns_of

NEIGHBOURS_PER_REMOVED = 3
MIN_NEIGHBOURS = 5
MAX_REFERENCE = 5000  # rows to search for neighbours
BLOCK_ROWS = 1024


def trimmed(split: Split, modality: Modality, share: float, generator: torch.Generator) -> Split:
    """Return the split without the least likely `share` of its training part, with a note; unchanged for 0.

    Raises SettingsError for images and videos, DataError for samples that preprocessing cannot be fitted on.
    """
    if share <= 0:
        return split
    if not training_modality(modality).can_trim:
        raise SettingsError(f"data.trim_share is for tabular and series data, not for {modality}: set it to 0.")
    prepared = fit_preprocessor(modality, split.train, split.spec).prepare(split.train)
    parts = columns_of(prepared.inputs, split.spec)
    vectors = torch.from_numpy(np.ascontiguousarray(parts.vectors))
    modes = np.zeros(len(vectors), dtype=np.int64) if parts.modes is None else parts.modes
    kept = [np.empty(0, dtype=np.intp)]
    for mode in np.unique(modes):
        rows = np.flatnonzero(modes == mode)
        kept.append(rows[likely(vectors[torch.from_numpy(rows)], share, generator)])
    positions = np.sort(prepared.kept[np.concatenate(kept)])
    left_out = len(split.train) - len(positions)
    note = f"{left_out} of {len(split.train)} training samples, the least likely, were left out"
    return dataclasses.replace(split, train=split.train[positions], notes=(*split.notes, note))


def likely(vectors: Tensor, share: float, generator: torch.Generator) -> NDArray[np.intp]:
    """Return ascending positions of all but the least likely `share` of `vectors` (n, dim), MIN_TRAIN at least."""
    count = min(round(share * len(vectors)), max(len(vectors) - MIN_TRAIN, 0))
    distances = neighbour_distances(vectors, share, generator)
    return np.sort(distances.argsort(stable=True)[: len(vectors) - count].numpy())


def neighbour_distances(vectors: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return the k-th nearest neighbour distance (n,) of `vectors` (n, dim), with k for a `share` of anomalies."""
    if len(vectors) < 2:
        return torch.zeros(len(vectors))
    rows = subsample(torch.arange(len(vectors)), MAX_REFERENCE, generator)
    place = torch.full((len(vectors),), -1)
    place[rows] = torch.arange(len(rows))
    reference = vectors[rows]
    neighbours = max(MIN_NEIGHBOURS, round(NEIGHBOURS_PER_REMOVED * share * len(rows)))
    neighbours = min(neighbours, len(rows) - 1)
    parts = []
    for start in range(0, len(vectors), BLOCK_ROWS):
        block, own = vectors[start : start + BLOCK_ROWS], place[start : start + BLOCK_ROWS]
        distances = torch.cdist(block, reference)
        has_own = (own >= 0).nonzero().squeeze(1)
        distances[has_own, own[has_own]] = torch.inf
        parts.append(distances.kthvalue(neighbours, dim=1).values)
    return torch.cat(parts)
