"""Score of a clip from the scores of its patches.

In a room at 32 pixels per patch, a person fills several patches and a lamp changes all of them a little. The highest
patch of a frame is usually a normal one with much motion. The mean over the higher half of the patches is steadier,
and leaves out the places without motion.
"""

import torch
from torch import Tensor

TOP_SHARE = 0.5


def clip_scores(maps: Tensor) -> Tensor:
    """Return clip scores (n,) from patch scores (n, rows, columns): the mean over the highest TOP_SHARE."""
    patches = maps.flatten(1)
    count = max(1, round(TOP_SHARE * int(patches.shape[1])))  # a number, which an export fixes
    highest: Tensor = patches.topk(count, dim=1).values
    return torch.mean(highest, dim=1)
