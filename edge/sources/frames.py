"""Selection of a camera's frames by stride and motion, and the region and masks within a frame."""

import math

import numpy as np
from numpy.typing import NDArray

from edge.settings.sources import CameraSettings
from shared.errors import DataError

THUMBNAIL = 32  # cells per side at most; motion is measured on them
CHANGED_LEVELS = 12.0  # of 255: a cell that changes by more has moved; sensor noise averages out within a cell
MASK_GREY = 128


def ready_frame(pixels: NDArray[np.uint8], settings: CameraSettings) -> NDArray[np.uint8]:
    """Return the region of a frame (height, width, 3) to screen, with masked parts painted grey.

    The frame itself stays unchanged. Raises DataError if the region reaches beyond the picture.
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
    """Passes every n-th frame in which something has moved since the last frame that passed."""

    def __init__(self, settings: CameraSettings) -> None:
        self._settings = settings
        self.forget()

    def forget(self) -> None:
        """Start over: another connection, or the file from its start."""
        self._passed: NDArray[np.float32] | None = None
        self._passed_at_s = -math.inf
        self._latest: NDArray[np.uint8] | None = None
        self._same_since_s = 0.0

    def passes_stride(self, number: int) -> bool:
        """Return whether the frame (or clip) of that number, from 0, is one of every `frame_stride`."""
        return number % self._settings.frame_stride == 0

    def passes_motion(self, pixels: NDArray[np.uint8], at_s: float) -> bool:
        """Return whether enough of the picture changed since the last frame that passed, or `still_after_s` went by."""
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
        """Return for how many seconds every frame has equalled this one; the noise of a live sensor prevents that."""
        if self._latest is None or self._latest.shape != pixels.shape or not np.array_equal(self._latest, pixels):
            self._latest, self._same_since_s = pixels, now_s
        return now_s - self._same_since_s


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the mean brightness (rows, columns) of at most THUMBNAIL x THUMBNAIL cells of a frame."""
    height, width = pixels.shape[:2]
    rows, columns = min(height, THUMBNAIL), min(width, THUMBNAIL)
    down, across = height // rows, width // columns
    grey = pixels[: rows * down, : columns * across, 1].astype(np.float32)  # green carries most of the brightness
    cells: NDArray[np.float32] = grey.reshape(rows, down, columns, across).mean(axis=(1, 3))
    return cells


def _changed(before: NDArray[np.float32], seen: NDArray[np.float32]) -> float:
    """Return the share of cells that changed, beyond a change of the whole picture such as a flickering lamp."""
    difference = seen - before
    return float((np.abs(difference - np.median(difference)) > CHANGED_LEVELS).mean())
