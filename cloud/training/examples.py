"""Normal pictures in a bundle, for people to compare an anomaly with: a typical one, and others unlike one another."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.images import encode_png

SIDE_PX = 384  # larger pictures are shrunk
MAX_COMPARED = 200  # pictures that the examples are chosen from
_SMALL_PX = 24


def normal_examples(images: NDArray[np.uint8], count: int) -> dict[str, NDArray[Any]]:
    """Return `count` of the images (n, height, width, 3) uint8 as PNG files by name, in order.

    The first one, the golden picture, has the smallest mean distance from all others. Each following one is the
    farthest from those before it, so that a few show what varies.
    """
    if not count or not len(images):
        return {}
    images = images[:MAX_COMPARED]
    small = np.stack([_small(image) for image in images])
    distances = np.sqrt(np.square(small[:, np.newaxis] - small[np.newaxis]).mean(axis=2))
    chosen = [int(np.argmin(distances.mean(axis=1)))]
    while len(chosen) < min(count, len(images)):
        nearest = distances[:, chosen].min(axis=1)
        nearest[chosen] = -1.0
        chosen.append(int(np.argmax(nearest)))
    return {f"picture_{place:02d}": _file(images[index]) for place, index in enumerate(chosen)}


def _small(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    grey = image.mean(axis=2, dtype=np.float32)
    small: NDArray[np.float32] = cv2.resize(grey, (_SMALL_PX, _SMALL_PX), interpolation=cv2.INTER_AREA).ravel()
    return small


def _file(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = min(1.0, SIDE_PX / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    shown = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    return np.frombuffer(encode_png(np.ascontiguousarray(shown)), dtype=np.uint8)
