"""Choice of the input size of a graph from the sizes of the normal images.

Defects are small: after shrinking a circuit board from 640 to 224 pixels every method is near chance. Therefore images
keep their native size, and only their area is bounded. The backbone is fully convolutional, so it takes whole images
without seams; only scores are computed per tile (`cloud.methods.pooling`).
"""

import math
from collections.abc import Sequence

from cloud.methods.encoders.efficientnet import DEEP_STRIDE
from shared.errors import DataError

MIN_SIDE_PIXELS = 128


def choose_size(shapes: Sequence[tuple[int, int]], max_area_pixels: int) -> tuple[int, int]:
    """Return height and width of the input, multiples of DEEP_STRIDE; `shapes`: (height, width) of normal images.

    It is the median shape, enlarged if its short side is below MIN_SIDE_PIXELS (features need context) and shrunk if
    its area exceeds `max_area_pixels`. Raises DataError for an empty list.
    """
    if not shapes:
        raise DataError("The input size is chosen from the sizes of normal images, but there are none: give images.")
    height, width = (sorted(sides)[len(sides) // 2] for sides in zip(*shapes, strict=True))
    enlarged = max(1.0, MIN_SIDE_PIXELS / min(height, width))
    scale = min(enlarged, math.sqrt(max_area_pixels / (height * width)))
    return _rounded(height * scale), _rounded(width * scale)


def _rounded(side: float) -> int:
    return max(2, round(side / DEEP_STRIDE)) * DEEP_STRIDE
