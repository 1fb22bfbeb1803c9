"""Crops of images: their place in the input of the graph, and the patches that can be judged from them."""

import numpy as np
from numpy.typing import NDArray

from shared.crops import CONTEXT_PIXELS, MIN_KNOWN_SHARE
from shared.errors import SampleRejected
from shared.images import resize
from shared.samples import ImageCrop

_TOLERANCE_PATCHES = 1e-9


def place_crop(
    pixels: NDArray[np.uint8], crop: ImageCrop, size: tuple[int, int], grid: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return an image (height, width, 3) of `size` with the crop's pixels in place, mirrored around them.

    `grid`: rows and columns of the encoder's patches. Raises SampleRejected for a preview, and for a crop that is too
    small: less than MIN_KNOWN_SHARE of the patches could be judged.
    """
    region, (height, width) = crop.region, size
    if region is None:
        raise SampleRejected("only a preview of the image was uploaded: the link or the budget was too narrow")
    top, bottom = _scaled(region.top, region.height, crop.height, height)
    left, right = _scaled(region.left, region.width, crop.width, width)
    if known_patches(crop, (height, width), grid).mean() < MIN_KNOWN_SHARE:
        raise SampleRejected(f"a crop of {region.height} x {region.width} pixels is too small to be judged")
    placed = resize(pixels, bottom - top, right - left)
    around = ((top, height - bottom), (left, width - right), (0, 0))
    canvas: NDArray[np.uint8] = np.pad(placed, around, mode="symmetric")
    return canvas


def known_patches(crop: ImageCrop, size: tuple[int, int], grid: tuple[int, int]) -> NDArray[np.bool_]:
    """Return a mask (rows, columns) of the patches of an image of `size` that can be judged from the crop.

    The crop must show CONTEXT_PIXELS around a patch, except beyond the border of the image.
    """
    known = np.zeros(grid, dtype=np.bool_)
    if crop.region is None:
        return known
    spans = []
    for axis, (start, length, whole) in enumerate(
        ((crop.region.top, crop.region.height, crop.height), (crop.region.left, crop.region.width, crop.width))
    ):
        first, last = _scaled(start, length, whole, size[axis])
        patch = size[axis] / grid[axis]
        inner_first = 0.0 if start == 0 else first + CONTEXT_PIXELS
        inner_last = float(size[axis]) if start + length == whole else last - CONTEXT_PIXELS
        # The tolerance covers rounding: 5 patches of 176 pixels have 35.2 pixels each, but 176 // 35.2 is 4.
        first_known, end_known = (
            np.ceil(inner_first / patch - _TOLERANCE_PATCHES),
            np.floor(inner_last / patch + _TOLERANCE_PATCHES),
        )
        spans.append(slice(max(0, int(first_known)), max(0, int(end_known))))
    known[spans[0], spans[1]] = True
    return known


def _scaled(start: int, length: int, whole: int, size: int) -> tuple[int, int]:
    """Return first and end of a span after `whole` pixels are scaled to `size`; at least one pixel."""
    first = min(round(start * size / whole), size - 1)
    return first, max(first + 1, min(size, round((start + length) * size / whole)))
