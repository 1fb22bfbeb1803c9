"""From the scores of an image's patches to the image's own score.

Scores of patches depend on where they lie: near the edge the network sees its own padding, and of a solar cell each
place shows something else. So each place is standardised by itself on normal images (`PlaceScale`). An image's score is
the mean over its worst patches, for two shares of them at once: a scratch is a thousandth of an image. What spoils all
of it spoils its worst hundredth, too, while the mean of all patches says mostly how much there is to see. A large image
is judged by the worst of overlapping tiles, or the same scratch would count less the more there is around it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

TOP_SHARES = ((0.001, 1), (0.01, 3))  # of the patches, and how many these are at least
PEAK_PATCHES = 3
TILE_SIDE, TILE_OVERLAP = 80, 20  # patches: 640 and 160 pixels
MIN_VARIANCE = 1e-8
MIN_VARIANCE_SHARE = 0.01  # of the mean variance: a black border that never changes must not decide every image


def image_scores(maps: Tensor) -> Tensor:
    """(n,) of patch scores (n, rows, columns): the mean of the means over the highest, one for each of TOP_SHARES.

    Of an image larger than one tile it is that of its worst tile.
    """
    tiles = torch.stack([maps[:, rows, columns].flatten(1) for rows, columns in tiles_of(*maps.shape[1:])], dim=1)
    weights = _top_weights(tiles.shape[2]).to(maps)
    top = tiles.topk(len(weights), dim=2).values
    result: Tensor = (top * weights).sum(dim=2).amax(dim=1)
    return result


def peak_scores(maps: Tensor) -> Tensor:
    """(n,) of patch scores (n, rows, columns) that are log odds of a defect there: the mean of the highest.

    A patch that is surely defective settles the matter, whatever the size of the image.
    """
    patches = maps.flatten(1)
    result: Tensor = patches.topk(min(PEAK_PATCHES, patches.shape[1]), dim=1).values.mean(dim=1)
    return result


def tiles_of(rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Where the tiles of a grid of patches lie: all alike, evenly spread, TILE_OVERLAP or more in common.

    One tile for everything where the grid has no more patches than a tile of TILE_SIDE.
    """
    whole = rows * columns <= TILE_SIDE**2
    for down in _spread(rows, rows if whole else TILE_SIDE):
        for across in _spread(columns, columns if whole else TILE_SIDE):
            yield down, across


def _spread(length: int, side: int) -> Iterator[slice]:
    """Slices of `side`, from the first of so many places to the last; of all of them if there are fewer."""
    count = max(1, math.ceil((length - TILE_OVERLAP) / (side - TILE_OVERLAP))) if length > side else 1
    for index in range(count):
        start = round(index * (length - side) / (count - 1)) if count > 1 else 0
        yield slice(start, start + min(side, length))


@dataclass(frozen=True)
class PlaceScale:
    """Mean and deviation (patches,) of normal patch scores at each place."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def fit(cls, normal: Tensor) -> Self:
        """The scale of normal patch scores (n, patches).

        Means and log variances are shrunk towards those of all places as far as their scatter can be chance (empirical
        Bayes; Efron & Morris, "Stein's estimation rule and its competitors", JASA 1973). Images without a layout in
        common are so left alone but for a factor.
        """
        scores = normal.double()
        count = len(scores)
        means, variances = scores.mean(dim=0), scores.var(dim=0, correction=0).clamp(min=MIN_VARIANCE)
        within = variances.mean()
        variances = variances.clamp(min=MIN_VARIANCE_SHARE * float(within))
        overall = scores.var(correction=0).clamp(min=MIN_VARIANCE)
        if count < 3 or scores.shape[1] < 3:
            same = torch.ones_like(means)
            return cls((same * scores.mean()).float(), (same * overall.sqrt()).float())
        means = _shrunk(means, within / count)
        logs = _shrunk(variances.log(), torch.tensor(2.0 / (count - 1), dtype=torch.float64))
        return cls(means.float(), (0.5 * logs).exp().float())

    def standardised(self, patch_scores: Tensor) -> Tensor:
        """Deviations above normal, (n, patches)."""
        return (patch_scores - self.mean) / self.deviation


def _shrunk(values: Tensor, chance: Tensor) -> Tensor:
    """Values (places,) drawn towards their mean, the more the less of their variance exceeds that of `chance`."""
    centred = values - values.mean()
    real = (centred.square().mean() - chance).clamp(min=0.0)
    return values.mean() + centred * real / (real + chance).clamp(min=MIN_VARIANCE)


def _top_weights(patches: int) -> Tensor:
    """What the highest patch scores count, in order."""
    counts = [min(patches, max(least, round(share * patches))) for share, least in TOP_SHARES]
    weights = torch.zeros(max(counts))
    for count in counts:
        weights[:count] += 1.0 / (count * len(counts))
    return weights
