"""Windows of consecutive readings, cut as readings arrive."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Stamp = TypeVar("Stamp", bound=np.generic)


class WindowCutter:
    """Cutter of windows of `length` rows every `stride` rows; it buffers the rows of the next windows."""

    def __init__(self, length: int, stride: int) -> None:
        self._length, self._stride = length, max(stride, 1)
        self.restart()

    def restart(self) -> None:
        """Drop buffered rows: no window spans the gap."""
        self._rows: Floats | None = None
        self._stamps: NDArray[Any] | None = None
        self._skip = 0  # rows between two windows that are still to come

    def resume(self, skip: int) -> None:
        """Continue from the `position` of another cutter."""
        self.restart()
        self._skip = skip

    def position(self, following: Stamp) -> tuple[Any, int]:
        """Return the stamp of the first row of the next window, and the number of rows to skip from there.

        The stamp is `following` if that row is yet to come.
        """
        return (following if self._stamps is None or not len(self._stamps) else self._stamps[0]), self._skip

    def cut(self, rows: Floats, stamps: NDArray[Stamp]) -> tuple[Floats, NDArray[Stamp], NDArray[Stamp]]:
        """Cut the windows that end in these rows.

        Args:
            rows: (m, channels) float32, in any portions.
            stamps: (m,) mark of each row, such as its number or its time.

        Returns:
            Windows (n, length, channels), and the stamps of the first and the last row of each.
        """
        if self._rows is not None and self._stamps is not None:
            rows, stamps = np.concatenate([self._rows, rows]), np.concatenate([self._stamps, stamps])
        usable, marks = rows[self._skip :], stamps[self._skip :]
        if len(usable) < self._length:
            self._rows, self._stamps = rows, stamps
            return np.empty((0, self._length, rows.shape[1]), dtype=np.float32), stamps[:0], stamps[:0]
        views = np.lib.stride_tricks.sliding_window_view(usable, self._length, axis=0)[:: self._stride]
        windows = views.transpose(0, 2, 1)  # (windows, length, channels)
        starts = np.arange(len(windows)) * self._stride
        next_start = self._skip + len(windows) * self._stride
        kept = min(next_start, len(rows))
        self._rows, self._stamps, self._skip = rows[kept:], stamps[kept:], next_start - kept
        return windows, marks[starts], marks[starts + self._length - 1]
