"""Locally corrupted copies of normal images, and how much of each place was changed.

The forward process of cold diffusion (Bansal et al., "Cold Diffusion: Inverting Arbitrary Image Transforms Without
Noise", NeurIPS 2023) with degradations that look like defects: inside a random mask the image is blended with something
else. Masks are thresholded smooth noise (Zavrtanik, Kristan & Skocaj, "DRAEM", ICCV 2021, section 3.3), rectangles (Li
et al., "CutPaste", CVPR 2021) and strokes; what is blended in is the image elsewhere, another normal image, one flat
colour, a blur or another brightness. Sizes are log-uniform, since most defects are small.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Plane: TypeAlias = NDArray[np.float32]

SMALLEST_SHARE, LARGEST_SHARE = 4e-4, 0.05  # of the image's area, for one mask
MOST_PLACES = 3
BILEVEL_MARGIN, BILEVEL_SHARE = 32, 0.98
MIDDLE_LEVEL, WHITE = 127.0, 255.0
TRIES = 20  # at changing an image before a copy is left as it is
LEAST_RANGE = 32.0  # grey levels: what has fewer is filled with any grey
_LEAST_AREA = 12.0  # pixels
_SUBPIXEL_BITS = 3


def is_bilevel(images: NDArray[np.uint8]) -> bool:
    """Whether nearly all pixels are at the two ends of the range, as of thresholded scans.

    Corrupted copies of such images are thresholded too: a grey pixel would give every corruption away.
    """
    ends = (images < BILEVEL_MARGIN) | (images > 255 - BILEVEL_MARGIN)
    return float(ends.mean()) >= BILEVEL_SHARE


def thresholded(image: NDArray[Any]) -> Plane:
    """Black where pixels are at most MIDDLE_LEVEL, white elsewhere."""
    return np.where(image > MIDDLE_LEVEL, np.float32(WHITE), np.float32(0.0))


def corrupt(
    image: NDArray[np.uint8], other: NDArray[np.uint8], generator: np.random.Generator, *, bilevel: bool = False
) -> tuple[NDArray[np.uint8], Plane]:
    """A copy of `image` (height, width, 3) changed in one to MOST_PLACES places, and the change (height, width).

    The change is the largest absolute difference over the colours, in grey levels. `other`: a normal image of the same
    shape to take parts from. Where `bilevel`, the copy is thresholded throughout and compared with the thresholded
    image: whoever learns from such copies MUST see the originals thresholded too, as `ImageEncoder` does.
    """
    original = thresholded(image) if bilevel else image.astype(np.float32)
    for _ in range(TRIES):  # a blank scan with another grey in it may be blank again, once thresholded
        copy = _changed(original, other, generator)
        result = np.clip(thresholded(copy) if bilevel else copy, 0, 255).astype(np.uint8)
        change = np.abs(result.astype(np.float32) - original).max(axis=2)
        if change.any():
            break
    return result, change


def _changed(original: Plane, other: NDArray[np.uint8], generator: np.random.Generator) -> Plane:
    """The image (height, width, 3) blended with something else in one to MOST_PLACES places."""
    changed = original.copy()
    for _ in range(generator.integers(1, MOST_PLACES + 1)):
        height, width = original.shape[:2]
        mask = _MASKS[generator.integers(len(_MASKS))](generator, height, width)
        filling = _filling(changed, original, other, generator)
        opacity = 1.0 if generator.random() < 0.4 else generator.uniform(0.25, 1.0)
        if generator.random() < 0.4:
            mask = cv2.GaussianBlur(mask, (0, 0), generator.uniform(0.6, 3.0)).astype(np.float32)
        weight = mask[..., np.newaxis] * np.float32(opacity)
        changed = changed * (1 - weight) + weight * filling
    return changed


def _filling(changed: Plane, original: Plane, other: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[Any]:
    """What is blended in: a blur (15 %), another brightness (20 %), or one of the four kinds of `_source`."""
    draw = generator.random()
    if draw < 0.15:
        sigma = math.exp(generator.uniform(0.0, math.log(max(2.0, 0.03 * min(original.shape[:2])))))
        return np.asarray(cv2.GaussianBlur(changed, (0, 0), sigma))
    if draw < 0.35:
        return changed * math.exp(generator.choice([-1, 1]) * generator.uniform(0.08, 0.6))
    return _source(original, other, generator)


def _source(original: Plane, other: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[Any]:
    """The image itself or another one, displaced and maybe turned over; or the colour of a pixel, or a random grey."""
    height, width = original.shape[:2]
    kind = generator.integers(4)
    if kind == 2:
        return np.broadcast_to(original[generator.integers(height), generator.integers(width)], original.shape)
    if kind == 3:
        low, high = float(original.min()), float(original.max())
        return np.full_like(
            original, generator.uniform(low, high) if high - low >= LEAST_RANGE else generator.uniform(0, 255)
        )
    texture = original if kind == 0 else other.astype(np.float32)
    moved = np.roll(texture, (generator.integers(height), generator.integers(width)), (0, 1))
    if generator.random() >= 0.5:
        return moved
    return np.rot90(moved, int(generator.integers(1, 4))) if height == width else moved[::-1]


def _noise_mask(generator: np.random.Generator, height: int, width: int) -> Plane:
    """Smooth noise above its 65 % quantile, inside a window of random size and place."""
    area = _random_area(generator, height, width)
    side, aspect = 2 * math.sqrt(area), math.exp(generator.normal() * 0.4)
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
    """A filled rectangle of random size, aspect and place; every other one turned."""
    area, aspect = _random_area(generator, height, width), math.exp(generator.uniform(-1.2, 1.2))
    most = min(height, width) - 1
    rows, columns = (float(np.clip(side, 3, most)) for side in (math.sqrt(area * aspect), math.sqrt(area / aspect)))
    centre = (generator.uniform(0, width), generator.uniform(0, height))
    angle = 0.0 if generator.random() < 0.5 else generator.uniform(0, 180)
    mask = np.zeros((height, width), dtype=np.float32)
    cv2.fillPoly(mask, [cv2.boxPoints((centre, (columns, rows), angle)).astype(np.int32)], 1.0)
    return mask


def _stroke_mask(generator: np.random.Generator, height: int, width: int) -> Plane:
    """A line that wanders, of random length and thickness."""
    side = min(height, width)
    step = max(3.0, 0.02 * side)
    length = math.exp(generator.uniform(math.log(max(8.0, 0.02 * side)), math.log(max(16.0, 0.6 * side))))
    turns = generator.normal(size=max(2, int(length / step))) * generator.uniform(0, 0.4)
    heading = generator.uniform(0, 2 * math.pi) + np.cumsum(turns)
    start = (generator.uniform(0.1, 0.9) * width, generator.uniform(0.1, 0.9) * height)
    steps = np.stack([np.cos(heading), np.sin(heading)], axis=1) * step
    points = np.round(np.concatenate([[start], start + np.cumsum(steps, axis=0)]) * 2**_SUBPIXEL_BITS)
    thickness = max(1, round(math.exp(generator.uniform(0, math.log(max(2.0, 0.02 * side))))))
    mask = np.zeros((height, width), dtype=np.uint8)
    cv2.polylines(mask, [points.astype(np.int32)], False, 255, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
    return mask.astype(np.float32) / np.float32(255)


def _random_area(generator: np.random.Generator, height: int, width: int) -> float:
    least, most = max(SMALLEST_SHARE * height * width, _LEAST_AREA), LARGEST_SHARE * height * width
    return math.exp(generator.uniform(math.log(least), math.log(max(most, 2 * least))))


_MASKS: tuple[Callable[[np.random.Generator, int, int], Plane], ...] = (_noise_mask, _rectangle_mask, _stroke_mask)
