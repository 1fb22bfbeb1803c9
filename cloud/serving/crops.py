"""Parts of images: where their pixels lie in what the graph sees, and which patches can be judged by them."""

import numpy as np
from numpy.typing import NDArray

from shared.crops import CONTEXT_PIXELS, MIN_KNOWN_SHARE
from shared.errors import SampleRejected
from shared.images import resize
from shared.samples import ImageCrop

_TOLERANCE_PATCHES = 1e-9


def place_crop(
    pixels: NDArray[np.uint8], part: ImageCrop, size: tuple[int, int], grid: tuple[int, int]
) -> NDArray[np.uint8]:
    """An image of `size`, height and width, x 3 with the pixels of the part in their place, mirrored all around.

    `grid`: rows and columns of the encoder's patches. Raises SampleRejected for a preview, and for a part so small that
    too little of it can be judged.
    """
    region, (height, width) = part.region, size
    if region is None:
        raise SampleRejected("only a preview of the image travelled: the link or the budget was too narrow")
    top, bottom = _scaled(region.top, region.height, part.height, height)
    left, right = _scaled(region.left, region.width, part.width, width)
    if known_patches(part, (height, width), grid).mean() < MIN_KNOWN_SHARE:
        raise SampleRejected(f"a part of {region.height} x {region.width} pixels is too small to be judged")
    placed = resize(pixels, bottom - top, right - left)
    around = ((top, height - bottom), (left, width - right), (0, 0))
    canvas: NDArray[np.uint8] = np.pad(placed, around, mode="symmetric")
    return canvas


def known_patches(part: ImageCrop, size: tuple[int, int], grid: tuple[int, int]) -> NDArray[np.bool_]:
    """(rows, columns) of a grid over an image of `size`: the patches of which the part shows enough surroundings.

    Of a side where the part ends with the image nothing is missing.
    """
    known = np.zeros(grid, dtype=np.bool_)
    if part.region is None:
        return known
    spans = []
    for axis, (start, length, whole) in enumerate(
        ((part.region.top, part.region.height, part.height), (part.region.left, part.region.width, part.width))
    ):
        first, last = _scaled(start, length, whole, size[axis])
        patch = size[axis] / grid[axis]
        inner_first = 0.0 if start == 0 else first + CONTEXT_PIXELS
        inner_last = float(size[axis]) if start + length == whole else last - CONTEXT_PIXELS
        # With a tolerance: 176 / 5 patches are 35.2 pixels, and 176 // 35.2 is 4.
        first_known, end_known = (
            np.ceil(inner_first / patch - _TOLERANCE_PATCHES),
            np.floor(inner_last / patch + _TOLERANCE_PATCHES),
        )
        spans.append(slice(max(0, int(first_known)), max(0, int(end_known))))
    known[spans[0], spans[1]] = True
    return known


def _scaled(start: int, length: int, whole: int, size: int) -> tuple[int, int]:
    """Where a span of `whole` pixels lies in `size` of them, at least one long."""
    first = min(round(start * size / whole), size - 1)
    return first, max(first + 1, min(size, round((start + length) * size / whole)))
