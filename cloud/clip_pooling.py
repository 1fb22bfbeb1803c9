"""From the scores of a clip's patches to the clip's own score.

Of a room at 32 pixels a patch, a person fills several patches and a lamp changes all of them a little. The single
highest patch of a frame is mostly a normal one that happens to be busy: the mean over the higher half is steadier, and
leaves out the places where nothing happens.
"""

import torch
from torch import Tensor

TOP_SHARE = 0.5


def clip_scores(patch_scores: Tensor) -> Tensor:
    """(n,) of patch scores (n, patches): the mean over the highest TOP_SHARE of each."""
    count = max(1, round(TOP_SHARE * patch_scores.shape[1]))
    highest: Tensor = patch_scores.topk(count, dim=1).values
    return torch.mean(highest, dim=1)
