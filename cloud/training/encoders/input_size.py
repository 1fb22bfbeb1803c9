"""The size of a graph's input, from the sizes of the normal images alone.

Defects are small: shrinking a circuit board of 640 pixels to 224 leaves every method near chance. So an image goes
in at its native size, and only its area is bounded. The backbone is fully convolutional: tiles need no seams between
them, and only scores are taken a tile at a time (`cloud.methods.pooling`).
"""

import math
from collections.abc import Sequence

from cloud.methods.encoders.efficientnet import DEEP_STRIDE
from shared.errors import DataError

MIN_SIDE_PIXELS = 128


def choose_size(shapes: Sequence[tuple[int, int]], max_area_pixels: int) -> tuple[int, int]:
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
