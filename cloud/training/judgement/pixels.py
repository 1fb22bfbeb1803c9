"""Standard corruptions of images and clips. They depend on the seed alone; sizes are shares of the shorter side."""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from cloud.training.judgement.vectors import changed_only

Pixels: TypeAlias = NDArray[np.uint8]
Change: TypeAlias = Callable[[Pixels, Pixels, np.random.Generator], NDArray[Any]]

MIN_COPIES, MAX_COPIES = 4, 10  # of each kind
MAX_PIXELS = 10 * 512 * 512  # of all copies of a kind together, unless MIN_COPIES are more
STAIN_SIDE, PIECE_SIDE, OBJECT_SIDE = 0.08, 0.1, 0.2
STAIN_OPACITY, SCRATCH_LENGTH, BLUR_SIGMA, COLOUR_GAIN = 0.7, 0.3, 0.012, 1.25


def copies_of(normal: Pixels) -> int:
    """Return the number of copies of each kind of samples (n, ...): fewer where they are large."""
    return max(MIN_COPIES, min(MAX_COPIES, MAX_PIXELS // max(1, int(np.prod(normal.shape[1:-1])))))


def picture_statistics(images: Pixels) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Return names and values (n, 3) of brightness, contrast and sharpness of images, in grey levels."""
    rows = []
    for image in images:
        grey = image.astype(np.float32).mean(axis=2)
        sharpness = (np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()) / 2
        rows.append((float(grey.mean()), float(grey.std()), float(sharpness)))
    return ("brightness", "contrast", "sharpness"), np.array(rows, dtype=np.float64).reshape(-1, 3)


def _place(image: Pixels, side: float, rng: np.random.Generator) -> tuple[int, int]:
    """Return row and column of a centre at least `side` pixels from the edges."""
    row, column = (int(rng.integers(int(side), max(int(size - side), int(side) + 1))) for size in image.shape[:2])
    return row, column


def _contrast(image: Pixels) -> float:
    """Return black or white: the level farther from the mean grey level."""
    return 20.0 if float(image.mean()) > 127.0 else 235.0


def _stain(image: Pixels, other: Pixels, rng: np.random.Generator) -> NDArray[Any]:
    side = STAIN_SIDE * min(image.shape[:2])
    row, column = _place(image, side, rng)
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    distance = np.hypot((rows - row) / side, (columns - column) / (side * rng.uniform(0.6, 1.4)))
    weight = (STAIN_OPACITY * np.clip(2.0 * (1.0 - distance), 0.0, 1.0))[:, :, np.newaxis]
    stained: NDArray[Any] = image * (1.0 - weight) + _contrast(image) * weight
    return stained


def _scratch(image: Pixels, other: Pixels, rng: np.random.Generator) -> NDArray[Any]:
    shorter = min(image.shape[:2])
    length, angle = SCRATCH_LENGTH * shorter, rng.uniform(0, math.pi)
    row, column = _place(image, 0.0, rng)
    end = (int(column + length * math.cos(angle)), int(row + length * math.sin(angle)))
    changed = np.ascontiguousarray(image).copy()
    level = _contrast(image)
    cv2.line(changed, (column, row), end, (level, level, level), max(1, round(shorter / 200)), cv2.LINE_AA)
    return changed


def _missing_piece(image: Pixels, other: Pixels, rng: np.random.Generator) -> NDArray[Any]:
    """Fill a rectangle with the median colour of the image's border, mostly the background."""
    half = PIECE_SIDE * min(image.shape[:2]) / 2
    row, column = _place(image, half, rng)
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    changed = image.copy()
    across = half * rng.uniform(0.6, 1.4)
    top, left = max(int(row - half), 0), max(int(column - across), 0)
    changed[top : int(row + half) + 1, left : int(column + across) + 1] = np.median(border, axis=0)
    return changed


def _blur(image: Pixels, other: Pixels, rng: np.random.Generator) -> NDArray[Any]:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), max(1.0, BLUR_SIGMA * min(image.shape[:2]))))


def _colour(image: Pixels, other: Pixels, rng: np.random.Generator) -> NDArray[Any]:
    """Make one colour stronger or weaker; all three in an image without colours."""
    gain = np.ones(3)
    chosen = slice(None) if np.ptp(image, axis=2).max() == 0 else slice((band := int(rng.integers(3))), band + 1)
    gain[chosen] = COLOUR_GAIN if rng.random() < 0.5 else 1.0 / COLOUR_GAIN
    return image * gain


def _object(clip: Pixels, other: Pixels, rng: np.random.Generator) -> NDArray[Any]:
    """Move a textured square across the second half of the clip."""
    frames, height, width = clip.shape[:3]
    side = max(2, int(OBJECT_SIDE * min(height, width)))
    texture = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    patch = cv2.resize(texture, (side, side), interpolation=cv2.INTER_NEAREST)
    top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
    changed = clip.copy()
    for number, frame in enumerate(range(frames // 2, frames)):
        column = (left + number * side // 2) % max(width - side + 1, 1)
        changed[frame, top : top + side, column : column + side] = patch
    return changed


def _frozen(clip: Pixels, other: Pixels, rng: np.random.Generator) -> NDArray[Any]:
    return np.repeat(clip[:1], len(clip), axis=0)


def _reversed(clip: Pixels, other: Pixels, rng: np.random.Generator) -> NDArray[Any]:
    return clip[::-1]


IMAGE_CORRUPTIONS: Mapping[str, Change] = {
    "stain": _stain,
    "scratch": _scratch,
    "missing piece": _missing_piece,
    "blur": _blur,
    "colour shift": _colour,
}
CLIP_CORRUPTIONS: Mapping[str, Change] = {
    "object that appears": _object,
    "frozen motion": _frozen,
    "reversed motion": _reversed,
}


def corrupted_pixels(kinds: Mapping[str, Change], normal: Pixels, count: int, seed: int) -> dict[str, Pixels]:
    """Return `count` corrupted copies by kind of images (n, height, width, 3) or clips, which have frames before."""
    found = {}
    for position, (kind, change) in enumerate(kinds.items()):
        rng = np.random.default_rng([seed % 2**32, position])
        own, others = rng.integers(0, len(normal), count), rng.integers(0, len(normal), count)
        copies = [
            np.clip(change(normal[i], normal[j], rng), 0, 255).astype(np.uint8)
            for i, j in zip(own, others, strict=True)
        ]
        found[kind] = changed_only(np.stack(copies), normal[own])
    return found
