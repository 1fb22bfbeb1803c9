"""Leave the least likely share of the training part out, before anything is learnt from it.

Normal data as it is found holds anomalies. How likely a row is, the distance to its k-th nearest other row says, a
density estimate (Loftsgaarden & Quesenberry, "A nonparametric estimate of a multivariate density function", 1965). With
a small k a cluster of anomalies vouches for itself; so k is NEIGHBOURS_A_SUSPECT times the number of rows to leave
out: if anomalies are no more than that, each has most of its k neighbours among the normal rows, wherever it lies.

Each operating mode is trimmed on its own: a rare mode is not an anomaly. The held-out part is never trimmed: without
its largest scores p-values would be too small, and false alarms more than was asked for (Bashari, Sesia & Romano,
"Robust conformal outlier detection under contaminated reference data", 2025). See docs/methods/robust_training.md.
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

NEIGHBOURS_A_SUSPECT = 3
MIN_NEIGHBOURS = 5
MAX_REFERENCE = 5000  # rows that neighbours are looked for among
BLOCK_ROWS = 1024


def trimmed(split: Split, modality: Modality, share: float, generator: torch.Generator) -> Split:
    """The split without the least likely `share` of its training part, told of in the notes; as it is for 0.

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
    """Positions, ascending, of all but the least likely `share` of `vectors` (n, dim); MIN_TRAIN are always kept."""
    count = min(round(share * len(vectors)), max(len(vectors) - MIN_TRAIN, 0))
    distances = neighbour_distances(vectors, share, generator)
    return np.sort(distances.argsort(stable=True)[: len(vectors) - count].numpy())


def neighbour_distances(vectors: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """How unlikely each of `vectors` (n, dim) is among the others if a `share` of them is anomalous: (n,)."""
    if len(vectors) < 2:
        return torch.zeros(len(vectors))
    rows = subsample(torch.arange(len(vectors)), MAX_REFERENCE, generator)
    place = torch.full((len(vectors),), -1)
    place[rows] = torch.arange(len(rows))
    reference = vectors[rows]
    neighbours = max(MIN_NEIGHBOURS, round(NEIGHBOURS_A_SUSPECT * share * len(rows)))
    neighbours = min(neighbours, len(rows) - 1)
    parts = []
    for start in range(0, len(vectors), BLOCK_ROWS):
        block, own = vectors[start : start + BLOCK_ROWS], place[start : start + BLOCK_ROWS]
        distances = torch.cdist(block, reference)
        has_own = (own >= 0).nonzero().squeeze(1)
        distances[has_own, own[has_own]] = torch.inf
        parts.append(distances.kthvalue(neighbours, dim=1).values)
    return torch.cat(parts)
