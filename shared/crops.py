"""Parts of images: how much of an image has to travel so that a place in it can be judged as in the whole."""

import math

# Of an image as the graph sees it: what lies farther than this from a place hardly changes its features. (Measured on
# bricks and circuit boards, of the middle of each with the rest mirrored: patch vectors 96 pixels inside it differ from
# the whole picture's by 1 to 4 % of their spread, 64 pixels inside by 4 to 15 %.)
CONTEXT_PIXELS = 96
MIN_KNOWN_SHARE = 0.01  # of the patches, in what can be judged: it is what an image's score is made from


def min_core_pixels(height: int, width: int, patch_pixels: float) -> int:
    """The side of the square around a place, without its context, that holds MIN_KNOWN_SHARE of the whole patches of
    an image of `height` x `width` as the graph sees it, wherever it lies. `patch_pixels`: a patch's longer side."""
    return math.ceil(math.sqrt(1.2 * MIN_KNOWN_SHARE * height * width) + 2 * patch_pixels)
