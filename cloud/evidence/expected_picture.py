"""Expected look of a picture: each marked region replaced by the piece of a normal picture that fits its surroundings.

The fused analyzers of images compare patches in the space of an encoder and restore no pixels, so the expected look
comes from normal pictures: for each marked region, the piece whose surroundings differ least from those of the region
is blended into it. The search is template matching on the ring around the region.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from cloud.evidence.pictures import MAP_QUIET, fitted

SIDE_PX = 384  # of the expected picture; a larger one is shrunk
MAX_REGIONS = 4
RING_PX = 14  # width of the surroundings that are compared
SEARCH_PX = 20  # largest distance of a piece from the region's place
MAX_SHARE = 0.5  # of the picture: a larger region has too little around it
_FEATHER_PX = 5
Pixels = NDArray[np.uint8]


def expected_picture(pixels: Pixels, cells: NDArray[np.uint8], normals: Sequence[Pixels]) -> Pixels | None:
    """Return the expected look (height, width, 3) uint8 of a picture; None without a usable region or normal picture.

    `cells`: the anomaly map. `normals`: normal pictures of any size.
    """
    shown = fitted(pixels, SIDE_PX, SIDE_PX).copy()
    height, width = shown.shape[:2]
    sized = [cv2.resize(fitted(each, SIDE_PX, SIDE_PX), (width, height)) for each in normals]
    found = False
    for mask in _regions(cells, height, width):
        piece = _best_piece(shown, mask, sized)
        if piece is None:
            continue
        found = True
        share = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), _FEATHER_PX)[..., np.newaxis]
        share = np.maximum(share, mask[..., np.newaxis].astype(np.float32) * 0.9)
        shown = np.clip(np.rint(shown * (1 - share) + piece * share), 0, 255).astype(np.uint8)
    return shown if found else None


def _regions(cells: NDArray[np.uint8], height: int, width: int) -> list[NDArray[np.bool_]]:
    """Return the masks (height, width) of the largest marked regions, a little widened."""
    levels = cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR)
    marked = cv2.dilate((levels > MAP_QUIET).astype(np.uint8), np.ones((5, 5), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(marked, connectivity=8)
    order = sorted(range(1, count), key=lambda label: -int(stats[label, cv2.CC_STAT_AREA]))[:MAX_REGIONS]
    return [labels == label for label in order if stats[label, cv2.CC_STAT_AREA] <= MAX_SHARE * height * width]


def _best_piece(shown: Pixels, mask: NDArray[np.bool_], normals: Sequence[Pixels]) -> NDArray[np.float32] | None:
    """Return a picture that holds, at the region, the piece with the best surroundings; None without surroundings."""
    rows, columns = np.nonzero(mask)
    top, bottom = max(0, int(rows.min()) - RING_PX), min(mask.shape[0], int(rows.max()) + 1 + RING_PX)
    left, right = max(0, int(columns.min()) - RING_PX), min(mask.shape[1], int(columns.max()) + 1 + RING_PX)
    ring = (~mask[top:bottom, left:right]).astype(np.float32)
    if ring.sum() < RING_PX**2:
        return None
    wanted = shown[top:bottom, left:right].astype(np.float32)
    weights = np.repeat(ring[..., np.newaxis], 3, axis=2)
    best: tuple[float, Pixels, int, int] | None = None
    for normal in normals:
        first_row, first_column = max(0, top - SEARCH_PX), max(0, left - SEARCH_PX)
        area = normal[first_row : bottom + SEARCH_PX, first_column : right + SEARCH_PX].astype(np.float32)
        distances = cv2.matchTemplate(area, wanted, cv2.TM_SQDIFF, mask=weights)
        lowest, _, (x, y), _ = cv2.minMaxLoc(np.nan_to_num(distances, nan=np.inf, posinf=3e38))
        if best is None or lowest < best[0]:
            best = (lowest, normal, first_row + y, first_column + x)
    if best is None:
        return None
    _, normal, row, column = best
    piece: NDArray[np.float32] = shown.astype(np.float32)
    piece[top:bottom, left:right] = normal[row : row + bottom - top, column : column + right - left]
    return piece
