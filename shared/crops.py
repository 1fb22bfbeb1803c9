"""Crops of images: how much of an image must travel so that a place is judged as in the whole image."""

import math

# Pixels of the graph's input that lie farther than this from a place hardly change its features. Measured on bricks and
# circuit boards, on the middle of each with the rest mirrored: patch vectors 96 pixels inside differ from those of the
# whole picture by 1 to 4 % of their spread, 64 pixels inside by 4 to 15 %.
CONTEXT_PIXELS = 96
MIN_KNOWN_SHARE = 0.01  # of the patches; an image's score is made from that many


def min_core_pixels(height: int, width: int, patch_pixels: float) -> int:
    """Return the side in pixels of the smallest crop to judge, without its context.

    It holds MIN_KNOWN_SHARE of the patches of a graph input of `height` x `width`, wherever the crop lies.
    `patch_pixels`: a patch's longer side.
    """
    return math.ceil(math.sqrt(1.2 * MIN_KNOWN_SHARE * height * width) + 2 * patch_pixels)
