"""Which frames of a camera are screened, and which part of them."""

import math

import numpy as np
from numpy.typing import NDArray

from edge.settings.sources import CameraSettings
from shared.errors import DataError

THUMBNAIL = 32  # cells a side, at most: motion is judged on them
CHANGED_LEVELS = 12.0  # of 255: how much a cell has to change; sensor noise averages out within a cell
MASK_GREY = 128


def ready_frame(pixels: NDArray[np.uint8], settings: CameraSettings) -> NDArray[np.uint8]:
    """The region of a frame (height, width, 3) that is screened, what is masked painted grey; a copy where it differs.

    Raises DataError where the region does not lie within the picture.
    """
    if settings.masks:
        pixels = pixels.copy()
        for mask in settings.masks:
            pixels[mask.top : mask.top + mask.height, mask.left : mask.left + mask.width] = MASK_GREY
    region = settings.region
    if region is None:
        return pixels
    height, width = pixels.shape[:2]
    if region.left + region.width > width or region.top + region.height > height:
        raise DataError(
            f"the region of source {settings.id!r} reaches beyond the picture of {width} x {height} pixels: correct it."
        )
    part = pixels[region.top : region.top + region.height, region.left : region.left + region.width]
    return np.ascontiguousarray(part)


class FrameGate:
    """Lets every so-manieth frame through, and of those the ones in which something moved since the last one."""

    def __init__(self, settings: CameraSettings) -> None:
        self._settings = settings
        self.forget()

    def forget(self) -> None:
        """Begin anew: another connection, or the file from its start."""
        self._passed: NDArray[np.float32] | None = None
        self._passed_at_s = -math.inf
        self._latest: NDArray[np.uint8] | None = None
        self._same_since_s = 0.0

    def passes_stride(self, number: int) -> bool:
        """Whether the frame of that number is one to look at."""
        return number % self._settings.frame_stride == 0

    def passes_motion(self, pixels: NDArray[np.uint8], at_s: float) -> bool:
        """Whether enough of the picture changed since the last frame that passed, or that was long ago."""
        if self._settings.motion_share == 0:
            return True
        seen = thumbnail(ready_frame(pixels, self._settings))
        before = self._passed
        moved = before is None or before.shape != seen.shape or _changed(before, seen) >= self._settings.motion_share
        if not moved and at_s - self._passed_at_s < self._settings.still_after_s:
            return False
        self._passed, self._passed_at_s = seen, at_s
        return True

    def same_for_s(self, pixels: NDArray[np.uint8], now_s: float) -> float:
        """For how long every frame has been exactly like this one: a live sensor has noise, so it never is for long."""
        if self._latest is None or self._latest.shape != pixels.shape or not np.array_equal(self._latest, pixels):
            self._latest, self._same_since_s = pixels, now_s
        return now_s - self._same_since_s


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean brightness (rows, columns) of at most THUMBNAIL x THUMBNAIL cells of a frame (height, width, 3)."""
    height, width = pixels.shape[:2]
    rows, columns = min(height, THUMBNAIL), min(width, THUMBNAIL)
    down, across = height // rows, width // columns
    grey = pixels[: rows * down, : columns * across, 1].astype(np.float32)  # green carries most of the brightness
    cells: NDArray[np.float32] = grey.reshape(rows, down, columns, across).mean(axis=(1, 3))
    return cells


def _changed(before: NDArray[np.float32], seen: NDArray[np.float32]) -> float:
    """The share of cells that changed, apart from the brightness of the whole picture: lamps flicker."""
    difference = seen - before
    return float((np.abs(difference - np.median(difference)) > CHANGED_LEVELS).mean())
