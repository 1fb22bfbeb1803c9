"""Score of an image from the scores of its patches.

Patch scores depend on their place: near the edge the network sees its padding, and each place of a solar cell looks
different. So each place is standardised on normal images (`PlaceScale`). The score of an image averages the means over
two shares of its highest patches: a scratch covers a thousandth of an image, a large defect also the highest hundredth.
The mean of all patches would depend mostly on the amount of content. A large image is split into overlapping tiles, and
its highest tile sets its score, so that the score of a scratch does not depend on the size of the image.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

TOP_SHARES = ((0.001, 1), (0.01, 3))  # share of the patches, and its minimum in patches
PEAK_PATCHES = 3
TILE_SIDE, TILE_OVERLAP = 80, 20  # patches: 640 and 160 pixels
MIN_VARIANCE = 1e-8
MIN_VARIANCE_SHARE = 0.01  # of the mean variance: a constant black border must not decide every image


def image_scores(maps: Tensor) -> Tensor:
    """Return image scores (n,) from patch scores (n, rows, columns), averaged over the top patches of both TOP_SHARES.

    An image with several tiles has the score of its highest tile.
    """
    tiles = torch.stack([maps[:, rows, columns].flatten(1) for rows, columns in tiles_of(*_sizes(maps))], dim=1)
    weights = _top_weights(_sizes(tiles)[1]).to(maps)
    top = tiles.topk(len(weights), dim=2).values
    result: Tensor = (top * weights).sum(dim=2).amax(dim=1)
    return result


def peak_scores(maps: Tensor) -> Tensor:
    """Return image scores (n,) from log odds of a defect (n, rows, columns): the mean of the PEAK_PATCHES highest.

    A few patches with a certain defect thus decide on an image of any size.
    """
    patches = maps.flatten(1)
    result: Tensor = patches.topk(min(PEAK_PATCHES, *_sizes(patches)), dim=1).values.mean(dim=1)
    return result


def tiles_of(rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Yield row and column slices of tiles: equal in size, evenly spaced, with an overlap of TILE_OVERLAP or more.

    A grid with at most TILE_SIDE ** 2 patches is one tile.
    """
    whole = rows * columns <= TILE_SIDE**2
    for down in _spread(rows, rows if whole else TILE_SIDE):
        for across in _spread(columns, columns if whole else TILE_SIDE):
            yield down, across


def _spread(length: int, side: int) -> Iterator[slice]:
    """Yield evenly spaced slices of `side` that cover `length` places; one slice if `length` is smaller."""
    count = max(1, math.ceil((length - TILE_OVERLAP) / (side - TILE_OVERLAP))) if length > side else 1
    for index in range(count):
        start = round(index * (length - side) / (count - 1)) if count > 1 else 0
        yield slice(start, start + min(side, length))


@dataclass(frozen=True)
class PlaceScale:
    """Mean and standard deviation (patches,) of normal patch scores at each place."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def fit(cls, normal: Tensor) -> Self:
        """Return the scale of normal patch scores (n, patches).

        Means and log variances are shrunk towards those of all places to the degree that chance explains their scatter
        (empirical Bayes; Efron & Morris, "Stein's estimation rule and its competitors", JASA 1973). Images without a
        common layout thus get nearly the same scale at all places.
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
        """Return patch scores (n, patches) in standard deviations above normal."""
        return (patch_scores - self.mean) / self.deviation


def _shrunk(values: Tensor, chance: Tensor) -> Tensor:
    """Return values (places,) shrunk towards their mean by the share of their variance that `chance` explains."""
    centred = values - values.mean()
    real = (centred.square().mean() - chance).clamp(min=0.0)
    return values.mean() + centred * real / (real + chance).clamp(min=MIN_VARIANCE)


def _sizes(values: Tensor) -> list[int]:
    """Return all sizes but the first as numbers, which an export fixes."""
    return [int(size) for size in values.shape[1:]]


def _top_weights(patches: int) -> Tensor:
    """Return the weights of the highest patch scores, in descending order of the scores."""
    counts = [min(patches, max(minimum, round(share * patches))) for share, minimum in TOP_SHARES]
    weights = torch.zeros(max(counts))
    for count in counts:
        weights[:count] += 1.0 / (count * len(counts))
    return weights
