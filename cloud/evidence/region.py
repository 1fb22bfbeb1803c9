"""Region of a picture that its anomaly map marks, in words."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cloud.evidence.pictures import MAP_QUIET

_ROWS, _COLUMNS = ("upper", "middle", "lower"), ("left", "centre", "right")


@dataclass(frozen=True, slots=True)
class MarkedRegion:
    """Largest marked region of a map.

    `words`: its place, such as "upper left". `share`: its part of the picture. `box`: left, top, width, height as
    shares of the picture. `regions`: number of separate marked regions.
    """

    words: str
    share: float
    box: tuple[float, float, float, float]
    regions: int


def marked_region(cells: NDArray[np.uint8]) -> MarkedRegion | None:
    """Return the region of a map (rows, columns) uint8 with the largest excess over normal; None if none is marked."""
    marked = (cells > MAP_QUIET).astype(np.uint8)
    count, labels = cv2.connectedComponents(marked, connectivity=8)
    if count < 2:
        return None
    excess = np.clip(cells.astype(np.float64) - MAP_QUIET, 0.0, None)
    sums = np.bincount(labels.ravel(), weights=excess.ravel(), minlength=count)
    largest = int(np.argmax(sums[1:])) + 1
    rows, columns = np.nonzero(labels == largest)
    height, width = cells.shape
    weights = excess[rows, columns]
    centre = np.average(rows + 0.5, weights=weights) / height, np.average(columns + 0.5, weights=weights) / width
    box = (
        float(columns.min()) / width,
        float(rows.min()) / height,
        float(np.ptp(columns) + 1) / width,
        float(np.ptp(rows) + 1) / height,
    )
    return MarkedRegion(_place(*centre), len(rows) / cells.size, box, count - 1)


def _place(down: float, across: float) -> str:
    row, column = _ROWS[min(2, int(3 * down))], _COLUMNS[min(2, int(3 * across))]
    if row == "middle":
        return "centre" if column == "centre" else f"middle {column}"
    return f"{row} {column}"
