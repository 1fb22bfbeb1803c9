"""How well anomaly maps find the defective pixels, where masks exist.

Sources: pixel AUROC and PRO, the overlap per region: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 129,
2021, sections 6.2 and 6.3.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cloud.metrics import auroc
from shared.errors import DataError

MAX_SIDE_PIXELS = 256  # larger masks are shrunk: a hundred images of a megapixel would take minutes to sort
PRO_LIMIT = 0.3  # false-positive rate up to which the curve is integrated
PRO_STEPS = 200


def pixel_figures(maps: Sequence[NDArray[np.float64]], masks: Sequence[NDArray[np.bool_]]) -> dict[str, float]:
    """`pixel_auroc` and `pro` of maps (rows, columns) of any size, brought to the size of their masks.

    `masks`: (height, width) bool, true where defective; all false for a good image. Raises DataError unless there are
    defective and good pixels.
    """
    shrunk = [shrink(mask) for mask in masks]
    if not any(mask.any() for mask in shrunk) or all(mask.all() for mask in shrunk):
        raise DataError("Pixel figures need masks with both defective and good pixels.")
    scores = [enlarge(values, mask.shape) for values, mask in zip(maps, shrunk, strict=True)]
    labels = np.concatenate([mask.ravel() for mask in shrunk])
    flat = np.concatenate([values.ravel() for values in scores])
    return {"pixel_auroc": auroc(labels, flat), "pro": pro(scores, shrunk)}


def pro(scores: Sequence[NDArray[np.float64]], masks: Sequence[NDArray[np.bool_]]) -> float:
    """The mean share of each defective region that is found, over false-positive rates of pixels up to PRO_LIMIT."""
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
    """The mask with at most MAX_SIDE_PIXELS a side; a pixel is defective where a part of it is."""
    import cv2

    longest = max(mask.shape)
    if longest <= MAX_SIDE_PIXELS:
        return mask
    height, width = (max(1, round(side * MAX_SIDE_PIXELS / longest)) for side in mask.shape)
    shares = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(shares > 0)


def enlarge(values: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A map (rows, columns) brought to `shape`, bilinearly."""
    import cv2

    resized = cv2.resize(values.astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.float64)


def _regions(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The connected regions of a mask, each as a mask."""
    import cv2

    count, numbers = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return [np.asarray(numbers == number) for number in range(1, count)]
