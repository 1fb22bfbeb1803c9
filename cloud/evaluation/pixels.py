"""Pixel metrics of anomaly maps against defect masks: pixel AUROC and PRO (per-region overlap).

Source: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 129,
2021, sections 6.2 and 6.3.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cloud.metrics import auroc
from shared.errors import DataError

MAX_SIDE_PIXELS = 256  # larger masks are shrunk, because sorting a hundred megapixel images takes minutes
PRO_LIMIT = 0.3  # false-positive rate up to which the curve is integrated
PRO_STEPS = 200


def pixel_figures(maps: Sequence[NDArray[np.float64]], masks: Sequence[NDArray[np.bool_]]) -> dict[str, float]:
    """Return `pixel_auroc` and `pro` of anomaly maps, resized to their masks.

    `maps`: (rows, columns) of any size. `masks`: (height, width) bool, true for defective pixels; all false for a good
    image. Raises DataError unless there are both defective and good pixels.
    """
    shrunk = [shrink(mask) for mask in masks]
    if not any(mask.any() for mask in shrunk) or all(mask.all() for mask in shrunk):
        raise DataError("Pixel metrics need masks with both defective and good pixels.")
    scores = [enlarge(values, mask.shape) for values, mask in zip(maps, shrunk, strict=True)]
    labels = np.concatenate([mask.ravel() for mask in shrunk])
    flat = np.concatenate([values.ravel() for values in scores])
    return {"pixel_auroc": auroc(labels, flat), "pro": pro(scores, shrunk)}


def pro(scores: Sequence[NDArray[np.float64]], masks: Sequence[NDArray[np.bool_]]) -> float:
    """Return the mean overlap per defective region over pixel false-positive rates up to PRO_LIMIT."""
    good = np.concatenate([values[~mask] for values, mask in zip(scores, masks, strict=True)])
    rates = np.linspace(0.0, PRO_LIMIT, PRO_STEPS + 1)
    thresholds = np.quantile(good, 1.0 - rates)
    overlaps = []
    for values, mask in zip(scores, masks, strict=True):
        for region in _regions(mask):
            inside = np.sort(values[region])
            overlaps.append(1.0 - np.searchsorted(inside, thresholds, side="right") / len(inside))
    curve = np.mean(overlaps, axis=0)
    return float(((curve[1:] + curve[:-1]) / 2).mean())


def shrink(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask with sides of at most MAX_SIDE_PIXELS; a pixel is defective if any part of it is."""
    import cv2

    longest = max(mask.shape)
    if longest <= MAX_SIDE_PIXELS:
        return mask
    height, width = (max(1, round(side * MAX_SIDE_PIXELS / longest)) for side in mask.shape)
    shares = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(shares > 0)


def enlarge(values: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return a map (rows, columns) resized to `shape` by bilinear interpolation."""
    import cv2

    resized = cv2.resize(values.astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.float64)


def _regions(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Return each connected region of a mask as a mask of its own."""
    import cv2

    count, numbers = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return [np.asarray(numbers == number) for number in range(1, count)]
