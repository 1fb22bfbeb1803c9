"""The size of a graph's input, from the sizes of the normal images alone.

Defects are small: shrinking a circuit board of 640 pixels to 224 leaves every method near chance. The backbone is fully
convolutional, so an image goes in at its native size, as one big tile; only its area is bounded, for the device's sake.
"""

import math
from collections.abc import Sequence

from cloud.encoders.efficientnet import DEEP_STRIDE
from shared.errors import DataError

MAX_AREA_PIXELS = 640 * 640
MIN_SIDE_PIXELS = 128


def choose_size(shapes: Sequence[tuple[int, int]], max_area_pixels: int = MAX_AREA_PIXELS) -> tuple[int, int]:
    """Height and width, multiples of DEEP_STRIDE, for normal images of these heights and widths.

    The median shape, enlarged where its short side is under MIN_SIDE_PIXELS (the features need surroundings), shrunk
    where its area is over `max_area_pixels`. Raises DataError for no shapes.
    """
    if not shapes:
        raise DataError("The input size is chosen from the sizes of normal images, and there are none: give images.")
    height, width = (sorted(sides)[len(sides) // 2] for sides in zip(*shapes, strict=True))
    enlarged = max(1.0, MIN_SIDE_PIXELS / min(height, width))
    scale = min(enlarged, math.sqrt(max_area_pixels / (height * width)))
    return _rounded(height * scale), _rounded(width * scale)


def _rounded(side: float) -> int:
    return max(2, round(side / DEEP_STRIDE)) * DEEP_STRIDE
