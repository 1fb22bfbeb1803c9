"""Samples, screening results and verdicts: the data types that all other modules use.

On a device samples move in batches, as a struct of arrays, which pays the cost of Python once a batch. The router's
selection moves one sample at a time.
"""

import math
import os
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from shared.modality import Modality

Values: TypeAlias = NDArray[np.float32] | NDArray[np.uint8]


class Route(StrEnum):
    """Decision of the router on one sample."""

    ACCEPT = "accept"
    FORWARD = "forward"
    ALARM = "alarm"
    AUDIT = "audit"


class Decision(StrEnum):
    """Decision of the cloud on one sample."""

    NORMAL = "normal"
    ANOMALOUS = "anomalous"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Rejection:
    """Origin of a sample that could not be screened, and the reason. It never counts as normal."""

    origin: str
    reason: str


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """Samples of one source, in the order they were captured.

    `values`: tabular (batch, features) float32; series (batch, length, channels) float32; image: a sequence of
    (height, width, bands) uint8 in RGB or grey, whose sizes may differ. `captured_at_s`: (batch,) float64, seconds
    since the epoch. `origins`: where each sample came from, such as a file name or "readings.csv:1042".
    `encoded`: file content of each image, if the source has it, to be sent unchanged. `rejections`: samples that the
    source could not read since the previous batch. `cursor`: position of the source after this batch, stored in one
    transaction with the batch's results; empty if the source does not resume. `on_kept` is called after that
    transaction, from any thread.
    """

    source_id: str
    modality: Modality
    values: NDArray[np.float32] | Sequence[NDArray[np.uint8]]
    captured_at_s: NDArray[np.float64]
    origins: Sequence[str]
    encoded: Sequence[bytes] | None = None
    rejections: Sequence[Rejection] = field(default=())
    cursor: str = ""
    on_kept: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self.captured_at_s)


@dataclass(frozen=True, slots=True)
class Region:
    """Rectangle in an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        """Rows of the image."""
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        """Columns of the image."""
        return slice(self.left, self.left + self.width)


@dataclass(frozen=True, slots=True)
class ImageCrop:
    """Part of an image of `height` x `width` pixels that is sent instead of the whole image.

    `region`: place of the sent pixels in the image; None if they are a small preview of the whole image.
    """

    height: int
    width: int
    region: Region | None


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample to send. `values`: one item of `SampleBatch.values`, or the pixels of a `crop`."""

    sample_id: uuid.UUID
    source_id: str
    modality: Modality
    captured_at_s: float
    origin: str
    values: Values
    encoded: bytes | None = None
    crop: ImageCrop | None = None


@dataclass(frozen=True, slots=True)
class Screening:
    """Result of screening one sample. `anomaly_map`: (height, width) uint8, 255 far outside normal, or None."""

    score: float
    p_value: float
    extrapolated: bool
    route: Route
    bundle_id: str
    calibration_id: str
    artefact: str
    anomaly_map: NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True)
class Opinion:
    """Score and p-value that one analyzer gave to one sample."""

    analyzer: str
    score: float
    p_value: float
    extrapolated: bool


NO_SAMPLE_ID = uuid.UUID(int=0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Fused result of the cloud's analysis of one sample.

    An analysis fills in `p_value`, `extrapolated`, `opinions`, `anomaly_map`, `contributions` and `score`; the service
    adds `sample_id`, `decision`, `bundle_id` and, as it stores it, `judged_at_s`. Until then the decision is UNDECIDED.

    `p_value`: in (0, 1]; None if the sample could not be judged.
    `anomaly_map`: (height, width) uint8, 255 far outside normal; for series (length, channels); None for table rows.
    `contributions`: share of each feature or channel, summing to 1; empty for images. `reason` explains UNDECIDED, or
    a `p_value` that is an upper bound.
    `score`: fused score, higher is more anomalous. `left_out`: members of the fusion that did not score the sample,
    since they could not change the decision; `p_value` is then an upper bound, and `reason` names them. Neither is sent
    or stored.
    """

    sample_id: uuid.UUID = NO_SAMPLE_ID
    decision: Decision = Decision.UNDECIDED
    p_value: float | None = None
    extrapolated: bool = False
    opinions: tuple[Opinion, ...] = ()
    bundle_id: str = ""
    judged_at_s: float = 0.0
    anomaly_map: NDArray[np.uint8] | None = None
    contributions: tuple[tuple[str, float], ...] = ()
    reason: str = ""
    score: float = field(default=math.nan, compare=False)
    left_out: tuple[str, ...] = field(default=(), compare=False)


def p_value_to_column(p_value: float | None) -> float:
    """Return the value of a database column NOT NULL: 0 for a verdict without a p-value."""
    return p_value if p_value is not None else 0.0


def p_value_from_column(stored: float | None) -> float | None:
    """Return the p-value that `p_value_to_column` stored; a real one is positive."""
    return stored or None


class _SampleIds:
    """Generator of UUIDv7 (RFC 9562, section 6.2 method 1): later ids of one process sort after earlier ones.

    Random bits for many ids come from one system call, since a call per id would take most of the time.
    """

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)  # a child must not wait for a lock that its parent held

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._last_ms, self._counter = 0, 0

    def new(self, count: int) -> list[uuid.UUID]:
        """Return the next `count` ids, in ascending order."""
        with self._lock:
            now_ms = time.time_ns() // 1_000_000
            if now_ms > self._last_ms:
                self._last_ms, self._counter = now_ms, secrets.randbits(11)
            # Otherwise the millisecond is the same, or the clock went back: count on to keep the order.
            first = self._last_ms << 12 | self._counter
            self._last_ms, self._counter = divmod(first + count, 1 << 12)
        random62 = np.frombuffer(os.urandom(8 * count), np.uint64) >> np.uint64(2)
        return [
            uuid.UUID(int=(place >> 12) << 80 | 0x7 << 76 | (place & 0xFFF) << 64 | 0b10 << 62 | bits)
            for place, bits in enumerate(random62.tolist(), first + 1)
        ]


_SAMPLE_IDS = _SampleIds()


def new_sample_id() -> uuid.UUID:
    """Return a UUIDv7 that sorts after all earlier ones of this process."""
    return _SAMPLE_IDS.new(1)[0]


def new_sample_ids(count: int) -> list[uuid.UUID]:
    """Return `count` UUIDv7, in ascending order."""
    return _SAMPLE_IDS.new(count)
