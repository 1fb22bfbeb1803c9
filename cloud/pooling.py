"""From the scores of an image's patches to the image's own score.

Scores of patches depend on where they lie: near the edge the network sees its own padding, and of a solar cell each
place shows something else. So each place is standardised by itself on normal images (`PlaceScale`). An image's score is
the mean over its worst patches, for two shares of them at once: a scratch is a thousandth of an image. What spoils all
of it spoils its worst hundredth, too, while the mean of all patches says mostly how much there is to see.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

TOP_SHARES = ((0.001, 1), (0.01, 3))  # of the patches, and how many these are at least
PEAK_PATCHES = 3
SMALLEST_VARIANCE = 1e-8
LEAST_SHARE = 0.01  # of the mean variance: a black border that never changes must not decide every image


def image_scores(patch_scores: Tensor) -> Tensor:
    """(n,) of patch scores (n, patches): the mean of the means over the highest of each, one for each of TOP_SHARES."""
    weights = _top_weights(patch_scores.shape[1]).to(patch_scores)
    top = patch_scores.topk(len(weights), dim=1).values
    result: Tensor = (top * weights).sum(dim=1)
    return result


def peak_scores(patch_scores: Tensor) -> Tensor:
    """(n,) of patch scores (n, patches) that are log odds of a defect there: the mean of the highest PEAK_PATCHES.

    A patch that is surely defective settles the matter, whatever the size of the image.
    """
    result: Tensor = patch_scores.topk(min(PEAK_PATCHES, patch_scores.shape[1]), dim=1).values.mean(dim=1)
    return result


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
        means, variances = scores.mean(dim=0), scores.var(dim=0, correction=0).clamp(min=SMALLEST_VARIANCE)
        within = variances.mean()
        variances = variances.clamp(min=LEAST_SHARE * float(within))
        overall = scores.var(correction=0).clamp(min=SMALLEST_VARIANCE)
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
    return values.mean() + centred * real / (real + chance).clamp(min=SMALLEST_VARIANCE)


def _top_weights(patches: int) -> Tensor:
    """What the highest patch scores count, in order."""
    counts = [min(patches, max(least, round(share * patches))) for share, least in TOP_SHARES]
    weights = torch.zeros(max(counts))
    for count in counts:
        weights[:count] += 1.0 / (count * len(counts))
    return weights
