"""Locally corrupted copies of normal images, with a map of the changes.

The forward process of cold diffusion (Bansal et al., "Cold Diffusion: Inverting Arbitrary Image Transforms Without
Noise", NeurIPS 2023) with degradations that look like defects: inside random masks the image is blended with a filling.

* Masks: thresholded smooth noise (Zavrtanik, Kristan & Skocaj, "DRAEM", ICCV 2021, section 3.3), rectangles (Li et al.,
  "CutPaste", CVPR 2021) and strokes.
* Fillings: another part of the image, another normal image, one flat colour, or the image itself blurred, brightened or
  darkened, inverted, dilated, eroded or displaced.

Sizes are log-uniform with a minimum of a few pixels for any image size, since most defects are small. A copy has many
corrupted places, since it must be encoded as a whole.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from cloud.methods.encoders.image import MIDDLE_LEVEL, WHITE

Plane: TypeAlias = NDArray[np.float32]
Window: TypeAlias = tuple[slice, slice]

MIN_WIDTH_PIXELS, MAX_WIDTH_SHARE = 4.0, 0.22  # width of a mask: pixels, and share of the shorter side
PIXELS_PER_PLACE = 80 * 80  # a copy has from one place to one per this many pixels, or SMALL_IMAGE_PLACES
SMALL_IMAGE_PLACES = 3
BILEVEL_MARGIN, BILEVEL_SHARE = 32, 0.98
MAX_DISPLACEMENT, FILTER_REACH = 16.0, 24  # pixels
TRIES = 20  # attempts to change an image before its copy stays unchanged
MIN_LEVEL_RANGE = 32.0  # grey levels; images with a smaller range are filled with any grey
_SUBPIXEL_BITS = 3


def is_bilevel(images: NDArray[np.uint8]) -> bool:
    """Return whether nearly all pixels are at the two ends of the range, as in thresholded scans.

    Corrupted copies of such images are thresholded too, because grey pixels would reveal every corruption.
    """
    ends = (images < BILEVEL_MARGIN) | (images > 255 - BILEVEL_MARGIN)
    return float(ends.mean()) >= BILEVEL_SHARE


def thresholded(image: NDArray[Any]) -> Plane:
    """Return the image with pixels up to MIDDLE_LEVEL black and the others white."""
    return np.where(image > MIDDLE_LEVEL, np.float32(WHITE), np.float32(0.0))


def corrupt(
    image: NDArray[np.uint8],
    other: NDArray[np.uint8],
    generator: np.random.Generator,
    *,
    bilevel: bool = False,
    max_places: int | None = None,
) -> tuple[NDArray[np.uint8], Plane]:
    """Return a copy of `image` (height, width, 3) changed in up to `max_places` places, and the change (height, width).

    By default the maximum is one place per PIXELS_PER_PLACE pixels, and at least SMALL_IMAGE_PLACES.

    The change is the largest absolute difference over the colours, in grey levels. `other`: a normal image of the same
    shape to take parts from. If `bilevel`, the copy is thresholded and compared with the thresholded image. Models that
    learn from such copies MUST also threshold the originals, as `ImageEncoder` does.
    """
    original = thresholded(image) if bilevel else image.astype(np.float32)
    for _ in range(TRIES):  # a blank scan with a grey filling may be blank again after thresholding
        copy = _changed(original, other, generator, bilevel, max_places)
        result = np.clip(thresholded(copy) if bilevel else copy, 0, 255).astype(np.uint8)
        change = np.abs(result.astype(np.float32) - original).max(axis=2)
        if change.any():
            break
    return result, change


def _changed(
    original: Plane, other: NDArray[np.uint8], generator: np.random.Generator, bilevel: bool, max_places: int | None
) -> Plane:
    """Return the image (height, width, 3) blended with fillings in some places."""
    changed = original.copy()
    height, width = original.shape[:2]
    maximum = max_places or max(SMALL_IMAGE_PLACES, round(height * width / PIXELS_PER_PLACE))
    for _ in range(generator.integers(1, maximum + 1)):
        mask = _MASKS[generator.integers(len(_MASKS))](generator, height, width)
        opacity = 1.0 if bilevel or generator.random() < 0.4 else generator.uniform(0.25, 1.0)
        if not bilevel and generator.random() < 0.4:
            mask = cv2.GaussianBlur(mask, (0, 0), generator.uniform(0.6, 3.0)).astype(np.float32)
        window = _bounds(mask)
        weight = mask[*window, np.newaxis] * np.float32(opacity)
        changed[window] = changed[window] * (1 - weight) + weight * _filling(
            changed, original, other, window, generator
        )
    return changed


def _bounds(mask: Plane) -> Window:
    """Return the bounding rows and columns of a mask."""
    down, across = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(down):
        return slice(0, 0), slice(0, 0)
    return slice(int(down[0]), int(down[-1]) + 1), slice(int(across[0]), int(across[-1]) + 1)


def _filling(
    changed: Plane, original: Plane, other: NDArray[np.uint8], window: Window, generator: np.random.Generator
) -> NDArray[Any]:
    """Return the filling of a window: a change of the image itself (60 %), or one of the four kinds of `_source`."""
    draw = generator.random()
    if draw < 0.12:
        sigma = math.exp(generator.uniform(0.0, math.log(max(2.0, 0.03 * min(original.shape[:2])))))
        return _filtered(changed, window, lambda part: cv2.GaussianBlur(part, (0, 0), sigma))
    if draw < 0.30:
        return changed[window] * math.exp(generator.choice([-1, 1]) * generator.uniform(0.08, 0.6))
    if draw < 0.40:
        kernel = np.ones((int(generator.integers(2, 8)),) * 2, dtype=np.uint8)
        grow = cv2.dilate if generator.random() < 0.5 else cv2.erode
        return _filtered(changed, window, lambda part: grow(part, kernel))
    if draw < 0.50:
        reach = math.exp(generator.uniform(math.log(2.0), math.log(MAX_DISPLACEMENT)))
        angle = generator.uniform(0, 2 * math.pi)
        return _moved(changed, window, round(reach * math.sin(angle)), round(reach * math.cos(angle)))
    if draw < 0.60:
        return sum(_levels(original)) - changed[window]
    return _source(original, other, window, generator)


def _source(original: Plane, other: NDArray[np.uint8], window: Window, generator: np.random.Generator) -> NDArray[Any]:
    """Return a displaced, possibly rotated part of this or another image, the colour of a pixel, or a random grey."""
    height, width = original.shape[:2]
    kind = generator.integers(4)
    if kind == 2:
        return np.asarray(original[generator.integers(height), generator.integers(width)])
    if kind == 3:
        return np.array(generator.uniform(*_levels(original)))
    texture: NDArray[Any] = original if kind == 0 else other
    if generator.random() < 0.5:
        texture = np.rot90(texture, int(generator.integers(1, 4))) if height == width else texture[::-1]
    return _moved(texture, window, int(generator.integers(height)), int(generator.integers(width)))


def _levels(original: Plane) -> tuple[float, float]:
    """Return the lowest and highest grey level of the image, or of the whole range if its own is too small."""
    low, high = float(original.min()), float(original.max())
    return (low, high) if high - low >= MIN_LEVEL_RANGE else (0.0, float(WHITE))


def _moved(image: NDArray[Any], window: Window, down: int, across: int) -> NDArray[Any]:
    """Return the window of the image after a cyclic shift."""
    rows, columns = (
        np.arange(part.start - shift, part.stop - shift) % length
        for part, shift, length in zip(window, (down, across), image.shape, strict=False)
    )
    moved: NDArray[Any] = image[rows[:, np.newaxis], columns]
    return moved


def _filtered(image: Plane, window: Window, change: Callable[[Plane], Any]) -> NDArray[Any]:
    """Return `change` of the window and its surroundings, cropped to the window."""
    first = [max(0, part.start - FILTER_REACH) for part in window]
    around = image[first[0] : window[0].stop + FILTER_REACH, first[1] : window[1].stop + FILTER_REACH]
    if not around.size:
        return around
    own = tuple(slice(part.start - start, part.stop - start) for part, start in zip(window, first, strict=True))
    return np.asarray(change(np.ascontiguousarray(around)))[own]


def _noise_mask(generator: np.random.Generator, height: int, width: int) -> Plane:
    """Return smooth noise above its 65 % quantile, inside a window of random size and place."""
    side, aspect = 2 * _random_width(generator, height, width), math.exp(generator.normal() * 0.4)
    rows, columns = int(np.clip(side * aspect, 5, height)), int(np.clip(side / aspect, 5, width))
    scale = max(2.5, min(rows, columns) / generator.uniform(1.5, 5.0))
    coarse = generator.standard_normal((int(rows / scale) + 2, int(columns / scale) + 2)).astype(np.float32)
    field = cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC)
    down, across = np.linspace(-1, 1, rows)[:, np.newaxis], np.linspace(-1, 1, columns)
    field = field - 1.2 * (down**2 + across**2)  # the window's edge stays outside
    top, left = generator.integers(0, height - rows + 1), generator.integers(0, width - columns + 1)
    mask = np.zeros((height, width), dtype=np.float32)
    mask[top : top + rows, left : left + columns] = field > np.quantile(field, 0.65)
    return mask


def _rectangle_mask(generator: np.random.Generator, height: int, width: int) -> Plane:
    """Return a filled rectangle of random size, aspect and place, rotated in half of the cases."""
    side, aspect = _random_width(generator, height, width), math.exp(generator.uniform(-1.2, 1.2))
    longest = min(height, width) - 1
    rows, columns = (float(np.clip(side * root, 3, longest)) for root in (math.sqrt(aspect), 1 / math.sqrt(aspect)))
    centre = (generator.uniform(0, width), generator.uniform(0, height))
    angle = 0.0 if generator.random() < 0.5 else generator.uniform(0, 180)
    mask = np.zeros((height, width), dtype=np.float32)
    cv2.fillPoly(mask, [cv2.boxPoints((centre, (columns, rows), angle)).astype(np.int32)], 1.0)
    return mask


def _stroke_mask(generator: np.random.Generator, height: int, width: int) -> Plane:
    """Return a curved line of random length and thickness."""
    length = 1.5 * _random_width(generator, height, width) + 4.0
    step = max(3.0, length / 12)
    turns = generator.normal(size=max(2, int(length / step))) * generator.uniform(0, 0.4)
    heading = generator.uniform(0, 2 * math.pi) + np.cumsum(turns)
    start = (generator.uniform(0.0, 1.0) * width, generator.uniform(0.0, 1.0) * height)
    steps = np.stack([np.cos(heading), np.sin(heading)], axis=1) * step
    points = np.round(np.concatenate([[start], start + np.cumsum(steps, axis=0)]) * 2**_SUBPIXEL_BITS)
    thickness = max(1, round(math.exp(generator.uniform(0, math.log(max(2.0, min(12.0, 0.3 * length)))))))
    mask = np.zeros((height, width), dtype=np.uint8)
    cv2.polylines(mask, [points.astype(np.int32)], False, 255, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
    return mask.astype(np.float32) / np.float32(255)


def _random_width(generator: np.random.Generator, height: int, width: int) -> float:
    """Return a log-uniform width in pixels."""
    widest = max(MAX_WIDTH_SHARE * min(height, width), 2 * MIN_WIDTH_PIXELS)
    return math.exp(generator.uniform(math.log(MIN_WIDTH_PIXELS), math.log(widest)))


_MASKS: tuple[Callable[[np.random.Generator, int, int], Plane], ...] = (_noise_mask, _rectangle_mask, _stroke_mask)
