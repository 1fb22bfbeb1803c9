"""Pictures of samples and of their anomaly maps, as PNG.

A cell up to MAP_QUIET is normal and stays transparent. Higher values run from amber over red to magenta, which stands
out on grey and coloured surfaces.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.images import encode_png, resize
from shared.samples import ImageCrop

DETAIL_PX = 1400
THUMBNAIL_WIDTH_PX, THUMBNAIL_HEIGHT_PX = 128, 80
OVERLAY_PX = 512
MAP_QUIET = 96
UNSEEN_GREY = 64
_STOPS = np.array([MAP_QUIET, 144.0, 200.0, 255.0])
_COLOURS = np.array([[255, 214, 10], [255, 140, 0], [240, 30, 40], [200, 0, 130]], dtype=np.float64)
_OPACITIES = np.array([0.0, 150.0, 205.0, 235.0])


def fitted(pixels: NDArray[np.uint8], width_px: int, height_px: int) -> NDArray[np.uint8]:
    """Return pixels (height, width, 3) uint8 shrunk to fit the box, with their aspect ratio."""
    rgb = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    scale = min(width_px / rgb.shape[1], height_px / rgb.shape[0])
    return _scaled(rgb, scale) if scale < 1 else rgb


def picture_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return the image for the detail view as PNG; re-encoded, so no bytes of a device reach a browser."""
    return encode_png(fitted(pixels, DETAIL_PX, DETAIL_PX))


def in_place(pixels: NDArray[np.uint8], part: ImageCrop) -> NDArray[np.uint8]:
    """Return a crop at its place in the image, grey elsewhere; a preview is returned as it is.

    (height, width, 3) uint8 of at most DETAIL_PX per side.
    """
    if part.region is None:
        return pixels
    scale = min(1.0, DETAIL_PX / max(part.height, part.width))
    height, width = (max(1, round(side * scale)) for side in (part.height, part.width))
    top, left = min(round(part.region.top * scale), height - 1), min(round(part.region.left * scale), width - 1)
    small = resize(
        pixels,
        min(height - top, max(1, round(part.region.height * scale))),
        min(width - left, max(1, round(part.region.width * scale))),
    )
    whole = np.full((height, width, 3), UNSEEN_GREY, np.uint8)
    whole[top : top + small.shape[0], left : left + small.shape[1]] = small
    return whole


def overlay(cells: NDArray[np.uint8], width_px: int, height_px: int) -> NDArray[np.uint8]:
    """Return the map (rows, columns) uint8 in colours, enlarged: (height_px, width_px, 4) uint8, RGBA."""
    smooth = _clipped(cv2.resize(cells, (width_px, height_px), interpolation=cv2.INTER_CUBIC))
    levels = np.arange(256.0)
    table = np.stack(
        [*(np.interp(levels, _STOPS, _COLOURS[:, band]) for band in range(3)), np.interp(levels, _STOPS, _OPACITIES)],
        axis=1,
    )
    coloured: NDArray[np.uint8] = table.astype(np.uint8)[smooth]
    return coloured


def overlay_png(cells: NDArray[np.uint8]) -> bytes:
    """Return the map as a transparent PNG to lay over the image, stretched to its size."""
    scale = max(1, OVERLAY_PX // max(cells.shape))
    rgba = overlay(cells, cells.shape[1] * scale, cells.shape[0] * scale)
    _, data = cv2.imencode(".png", cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA))
    return bytes(data.tobytes())


def thumbnail_png(pixels: NDArray[np.uint8], cells: NDArray[np.uint8] | None) -> bytes:
    """Return a thumbnail of the image as PNG, with its map if there is one."""
    small = fitted(pixels, THUMBNAIL_WIDTH_PX, THUMBNAIL_HEIGHT_PX)
    return encode_png(small if cells is None else with_overlay(small, cells))


def with_overlay(pixels: NDArray[np.uint8], cells: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the picture (height, width, 3) uint8 with its map blended over it, at most DETAIL_PX a side."""
    rgb = fitted(pixels, DETAIL_PX, DETAIL_PX)
    rgba = overlay(cells, rgb.shape[1], rgb.shape[0]).astype(np.float32)
    share = rgba[..., 3:] / 255.0
    return _clipped(rgb * (1 - share) + rgba[..., :3] * share)


def _scaled(rgb: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    width, height = (max(1, round(side * scale)) for side in (rgb.shape[1], rgb.shape[0]))
    return _clipped(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA))


def _clipped(values: NDArray[Any]) -> NDArray[np.uint8]:
    clipped: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return clipped
