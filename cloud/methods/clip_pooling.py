"""From the scores of a clip's patches to the clip's own score.

Of a room at 32 pixels a patch, a person fills several patches and a lamp changes all of them a little. The single
highest patch of a frame is mostly a normal one that happens to be busy: the mean over the higher half is steadier, and
leaves out the places where nothing happens.
"""

import torch
from torch import Tensor

TOP_SHARE = 0.5


def clip_scores(maps: Tensor) -> Tensor:
    """(n,) of patch scores (n, rows, columns): the mean over the highest TOP_SHARE of each."""
    patches = maps.flatten(1)
    count = max(1, round(TOP_SHARE * patches.shape[1]))
    highest: Tensor = patches.topk(count, dim=1).values
    return torch.mean(highest, dim=1)
