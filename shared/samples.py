"""Samples and what is said of them on their way: the vocabulary every other module uses.

Samples move in batches through the edge (a struct of arrays, so that the cost of Python is paid once a batch),
and one by one only after the router has picked them.
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
    """The router's decision on one sample."""

    ACCEPT = "accept"
    FORWARD = "forward"
    ALARM = "alarm"
    AUDIT = "audit"


class Decision(StrEnum):
    """The cloud's decision on one sample."""

    NORMAL = "normal"
    ANOMALOUS = "anomalous"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A sample that could not be screened: where it came from and why. It never counts as normal."""

    origin: str
    reason: str


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """Samples of one source, in the order they were captured.

    `values`: tabular (batch, features) float32; series (batch, length, channels) float32; image: a sequence of
    (height, width, bands) uint8 in RGB or grey, whose sizes may differ. `captured_at_s`: (batch,) float64, seconds
    since the epoch. `origins`: where each sample came from, such as a file name or "readings.csv:1042".
    `encoded`: the file bytes of each image as the source read them, when it has them, so that they travel unchanged.
    `rejections`: what the source could not read on the way to this batch. `cursor`: where the source goes on after this
    batch; it is kept in one transaction with what became of the batch, and `on_kept` is called then, from any thread.
    Empty: the source does not ask for that.
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
    """A rectangle of an image, in its pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        """Of the image."""
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        """Of the image."""
        return slice(self.left, self.left + self.width)


@dataclass(frozen=True, slots=True)
class ImageCrop:
    """What travels of an image of `height` x `width` pixels that does not travel whole.

    `region`: where the pixels lie in it; None: they are a small preview of all of it, for people to look at.
    """

    height: int
    width: int
    region: Region | None


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample on its way to the cloud. `values` as one item of `SampleBatch.values`, or the pixels of a `crop`."""

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
    """What the edge said of one sample. `anomaly_map`: (height, width) uint8, 255 far outside normal, or None."""

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
    """What one analyzer said of one sample."""

    analyzer: str
    score: float
    p_value: float
    extrapolated: bool


NO_SAMPLE_ID = uuid.UUID(int=0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The cloud's fused answer for one sample.

    An analysis fills in `p_value`, `extrapolated`, `opinions`, `anomaly_map`, `contributions` and `score`; the service
    adds `sample_id`, `decision`, `bundle_id` and `judged_at_s`. Until then the decision is UNDECIDED.

    `anomaly_map`: (height, width) uint8, 255 far outside normal; for series (length, channels); None for table rows.
    `contributions`: share of each feature or channel, summing to 1; empty for images. `reason` explains UNDECIDED.
    `score`: fused score, higher is more anomalous; it is neither sent nor stored.
    """

    sample_id: uuid.UUID = NO_SAMPLE_ID
    decision: Decision = Decision.UNDECIDED
    p_value: float = 0.0
    extrapolated: bool = False
    opinions: tuple[Opinion, ...] = ()
    bundle_id: str = ""
    judged_at_s: float = 0.0
    anomaly_map: NDArray[np.uint8] | None = None
    contributions: tuple[tuple[str, float], ...] = ()
    reason: str = ""
    score: float = field(default=math.nan, compare=False)


class _SampleIds:
    """Makes UUIDv7 (RFC 9562, section 6.2 method 1): later ids of one process sort after earlier ones.

    Random bits come from the operating system for many ids at a time: asking for each takes longer than all else.
    """

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)  # a child must not wait for a lock that its parent held

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._last_ms, self._counter = 0, 0

    def new(self, count: int) -> list[uuid.UUID]:
        """The next ids, in their order."""
        with self._lock:
            now_ms = time.time_ns() // 1_000_000
            if now_ms > self._last_ms:
                self._last_ms, self._counter = now_ms, secrets.randbits(11)
            # Else the same millisecond, or the clock went back: keep the order.
            first = self._last_ms << 12 | self._counter
            self._last_ms, self._counter = divmod(first + count, 1 << 12)
        random62 = np.frombuffer(os.urandom(8 * count), np.uint64) >> np.uint64(2)
        return [
            uuid.UUID(int=(place >> 12) << 80 | 0x7 << 76 | (place & 0xFFF) << 64 | 0b10 << 62 | bits)
            for place, bits in enumerate(random62.tolist(), first + 1)
        ]


_SAMPLE_IDS = _SampleIds()


def new_sample_id() -> uuid.UUID:
    """A UUIDv7 that sorts after all that this process made before."""
    return _SAMPLE_IDS.new(1)[0]


def new_sample_ids(count: int) -> list[uuid.UUID]:
    """As many of them, in their order."""
    return _SAMPLE_IDS.new(count)
