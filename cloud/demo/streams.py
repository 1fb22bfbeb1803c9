"""What one demo device sees: where its samples come from, and what is known of each afterwards.

The devices never see a label; the demo looks them up by a sample's origin when all is over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.bundle import InputSpec
from shared.images import decode_image
from shared.modality import Modality
from shared.samples import Values


class Stream(Protocol):
    """The samples of one device, by origin."""

    @property
    def path(self) -> Path:
        """The file or folder the device reads."""

    def values(self, origin: str, spec: InputSpec) -> Values:
        """The sample that came from `origin`, as the device read it for a bundle with that input."""

    def is_anomalous(self, origin: str, spec: InputSpec) -> bool | None:
        """What is known of that sample; None where nothing is."""


@dataclass(frozen=True)
class TableStream:
    """Rows of a CSV file. `rows`: (n, features) float32; `labels`: (n,) bool, or None where unknown."""

    path: Path
    rows: NDArray[np.float32]
    labels: NDArray[np.bool_] | None

    def values(self, origin: str, spec: InputSpec) -> Values:
        """Row (features,)."""
        row: NDArray[np.float32] = self.rows[_row(origin)]
        return row

    def is_anomalous(self, origin: str, spec: InputSpec) -> bool | None:
        """The row's label."""
        return None if self.labels is None else bool(self.labels[_row(origin)])


@dataclass(frozen=True)
class WindowStream:
    """Windows of a series in a CSV file. `rows`: (time points, channels) float32; `labels`: (time points,) or None."""

    path: Path
    rows: NDArray[np.float32]
    labels: NDArray[np.bool_] | None

    def values(self, origin: str, spec: InputSpec) -> Values:
        """Window (length, channels)."""
        window: NDArray[np.float32] = self.rows[_window(origin, spec)]
        return window

    def is_anomalous(self, origin: str, spec: InputSpec) -> bool | None:
        """Whether any time point of the window is labelled."""
        return None if self.labels is None else bool(self.labels[_window(origin, spec)].any())


@dataclass(frozen=True)
class ImageStream:
    """Files of a folder; `anomalous` names those with a defect, None where nothing is known."""

    path: Path
    anomalous: frozenset[str] | None

    def values(self, origin: str, spec: InputSpec) -> Values:
        """Pixels (height, width, bands)."""
        return decode_image((self.path / Path(origin).name).read_bytes(), origin=origin)

    def is_anomalous(self, origin: str, spec: InputSpec) -> bool | None:
        """Whether the file is one of those with a defect."""
        return None if self.anomalous is None else Path(origin).name in self.anomalous


@dataclass(frozen=True)
class DevicePlan:
    """One device of the demo: what its screener is trained on and what it will see.

    `rate_per_s`: rows, readings or images a second. `training`: settings of `vedette train`, as its TOML file has them.
    `about`: one sentence for people, which says what of the data is not real.
    """

    device_id: str
    modality: Modality
    bundle_name: str
    training_data: Path
    stream: Stream
    rate_per_s: float
    about: str
    training: Mapping[str, Any] = field(default_factory=dict)
    federated: bool = False


def write_csv(path: Path, columns: Sequence[str], rows: NDArray[np.float32]) -> None:
    """Rows (n, columns) as a CSV file with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, rows, fmt="%.9g", delimiter=",", header=",".join(columns), comments="")


def _row(origin: str) -> int:
    """The row, from 0, of an origin such as "readings.csv:10"."""
    return int(origin.rpartition(":")[2])


def _window(origin: str, spec: InputSpec) -> slice:
    """The rows of the window that starts at an origin."""
    first = _row(origin)
    return slice(first, first + spec.window_length)
