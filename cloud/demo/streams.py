"""Streams of samples of the demo's devices, with labels.

The devices never see a label; the demo looks them up by a sample's origin at the end.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.bundle import InputSpec
from shared.errors import DataError
from shared.images import PixelRange, decode_image
from shared.modality import Modality
from shared.preprocessing.video import graph_frame
from shared.samples import Values
from shared.videos import frame_step, frames_of, probe


class DeviceSamples(Protocol):
    """Samples of one device, by origin."""

    @property
    def path(self) -> Path:
        """File or folder that the device reads."""

    def values(self, origin: str, spec: InputSpec) -> Values:
        """Return the sample from `origin`, as the device reads it for a bundle with this input."""

    def is_anomalous(self, origin: str, spec: InputSpec) -> bool | None:
        """Return the label of that sample, or None if it is unknown."""


@dataclass(frozen=True)
class TableStream:
    """Rows of a CSV file. `rows`: (n, features) float32; `labels`: (n,) bool, or None if unknown."""

    path: Path
    rows: NDArray[np.float32]
    labels: NDArray[np.bool_] | None

    def values(self, origin: str, spec: InputSpec) -> Values:
        """Return the row (features,)."""
        row: NDArray[np.float32] = self.rows[_row(origin)]
        return row

    def is_anomalous(self, origin: str, spec: InputSpec) -> bool | None:
        """Return the label of the row."""
        return None if self.labels is None else bool(self.labels[_row(origin)])


@dataclass(frozen=True)
class WindowStream:
    """Windows of a series in a CSV file. `rows`: (time points, channels) float32; `labels`: (time points,) or None."""

    path: Path
    rows: NDArray[np.float32]
    labels: NDArray[np.bool_] | None

    def values(self, origin: str, spec: InputSpec) -> Values:
        """Return the window (length, channels)."""
        window: NDArray[np.float32] = self.rows[_window(origin, spec)]
        return window

    def is_anomalous(self, origin: str, spec: InputSpec) -> bool | None:
        """Return whether any time point of the window is labelled."""
        return None if self.labels is None else bool(self.labels[_window(origin, spec)].any())


@dataclass(frozen=True)
class ImageStream:
    """Files of a folder; `anomalous` names those with a defect, None if unknown."""

    path: Path
    anomalous: frozenset[str] | None

    def values(self, origin: str, spec: InputSpec) -> Values:
        """Return the pixels (height, width, bands)."""
        data = (self.path / Path(origin).name).read_bytes()
        return decode_image(data, origin=origin, pixel_range=PixelRange.of(spec.pixel_range))

    def is_anomalous(self, origin: str, spec: InputSpec) -> bool | None:
        """Return whether the file has a defect."""
        return None if self.anomalous is None else Path(origin).name in self.anomalous


class VideoStream:
    """Clips of an unlabelled video file. They are decoded from the start once, if they are asked for in order."""

    def __init__(self, path: Path, frames_per_second: float) -> None:
        self.path, self._frames_per_second = path, frames_per_second
        self._frames: Iterator[tuple[int, NDArray[np.uint8]]] = iter(())
        self._held: dict[int, NDArray[np.uint8]] = {}
        self._next = 0

    def values(self, origin: str, spec: InputSpec) -> Values:
        """Return the clip (frames, height, width, 3) that ends with the frame of `origin`."""
        step, last = frame_step(self._frames_per_second, spec.frame_interval_s), _number(origin)
        wanted = range(last - step * (spec.window_length - 1), last + 1, step)
        if not all(number in self._held or number >= self._next for number in wanted):
            self._held, self._next = {}, 0
        if self._next == 0:
            self._frames = frames_of(self.path, range(probe(self.path).frames))
        self._held = {number: pixels for number, pixels in self._held.items() if number >= wanted[0]}
        while self._next <= last:
            number, pixels = next(self._frames, (last, None))
            if pixels is None:
                raise DataError(f"{self.path}: ends before frame {last}.")
            self._next = number + 1
            if number >= wanted[0]:
                self._held[number] = graph_frame(pixels, spec)
        return np.stack([self._held[number] for number in wanted])

    def is_anomalous(self, origin: str, spec: InputSpec) -> bool | None:
        """Return None: the video has no labels."""
        return None


@dataclass(frozen=True)
class DevicePlan:
    """One device of the demo with its training data and its stream.

    `rate_per_s`: rows, readings, images or clips per second. `training`: settings of `vedette train`, as in its TOML
    file. `about`: one sentence on the data, which names any artificial part.
    """

    device_id: str
    modality: Modality
    bundle_name: str
    training_data: Path
    stream: DeviceSamples
    rate_per_s: float
    about: str
    training: Mapping[str, Any] = field(default_factory=dict)
    federated: bool = False


def write_csv(path: Path, columns: Sequence[str], rows: NDArray[np.float32]) -> None:
    """Write rows (n, columns) as a CSV file with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, rows, fmt="%.9g", delimiter=",", header=",".join(columns), comments="")


def _number(origin: str) -> int:
    """Return the number in an origin such as "gate.mp4:10"."""
    return int(origin.rpartition(":")[2])


def _row(origin: str) -> int:
    """Return the position, from 0, of the row in an origin such as "readings.csv:10", which counts from 1."""
    return _number(origin) - 1


def _window(origin: str, spec: InputSpec) -> slice:
    """Return the rows of the window that starts at an origin."""
    first = _row(origin)
    return slice(first, first + spec.window_length)
