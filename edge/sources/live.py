"""Readings that come by themselves: from the thread that receives them to batches of rows or windows."""

import math
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

from edge.settings.sources import ReadingsBase
from edge.sources.alignment import Alignment, Reading, Row
from edge.sources.base import Pacer
from edge.sources.health import HealthRecord, SourceHealth
from edge.sources.windows import WindowCutter
from shared.bundle import InputSpec
from shared.errors import SettingsError
from shared.modality import Modality
from shared.samples import Rejection, SampleBatch
from shared.texts import moment_text

MAX_WAITING = 50_000  # readings
FULL_WAIT_S = 5.0  # how long a sender that must not be held up for ever waits for room
WAKE_S = 0.2
_JUDGED = ("running", "silent")  # whoever is not connected says that instead


class Intake:
    """Readings on their way from the thread that receives them. Bounded: who brings more than is taken has to wait."""

    def __init__(self) -> None:
        self._items: deque[Reading | Rejection] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._error: Exception | None = None

    def put(self, items: Sequence[Reading | Rejection], most_wait_s: float | None = None) -> int:
        """Add some once there is room; returns how many old ones had to go because there was none for so long."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or len(self._items) < MAX_WAITING, most_wait_s)
            self._items.extend(items)
            self._changed.notify_all()
            lost = max(0, len(self._items) - MAX_WAITING - len(items))
            for _ in range(lost):
                self._items.popleft()
            return lost

    def end(self) -> None:
        """Nothing more will come, or be asked for."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """Nothing more will come, and that is why; whoever takes next is told."""
        self._error = error
        self.end()

    def take(self) -> tuple[list[Reading | Rejection], bool]:
        """All there is, and whether that was the last; waits for some for WAKE_S at the most."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._items, WAKE_S)
            if self._error is not None and not self._items:
                raise self._error
            items = list(self._items)
            self._items.clear()
            self._changed.notify_all()
            return items, self._ended and self._error is None


class LiveReadings(ABC):
    """A source of readings: each row a sample (tabular), or each window of consecutive rows (series).

    Whoever derives from it brings readings to `_intake` between `_start` and `_end`.
    """

    is_paced = True

    def __init__(self, settings: ReadingsBase, modality: Modality, spec: InputSpec, pacer: Pacer) -> None:
        """Raises SettingsError if the settings name a channel that the bundle has not."""
        if unknown := set(settings.channels) - set(spec.channels):
            raise SettingsError(
                f"Source {settings.id!r}: no channel {', '.join(map(repr, sorted(unknown)))} in its bundle, which has "
                f"{', '.join(map(repr, spec.channels[:20]))}{' and more' if len(spec.channels) > 20 else ''}."
            )
        self.source_id, self.modality = settings.id, modality
        self._readings, self._spec, self._channels, self._pacer = settings, spec, spec.channels, pacer
        self._health, self._intake = HealthRecord(), Intake()
        is_series = modality is Modality.SERIES
        self._cutter = WindowCutter(spec.window_length, spec.window_stride) if is_series else None
        self._alignment = Alignment(
            len(spec.channels),
            interval_s=settings.interval_s,
            hold_s=settings.hold_s,
            lateness_s=settings.lateness_s if settings.interval_s > 0 else 0.0,
            longest_gap=spec.window_length if is_series else 1,
        )
        self._due_s = 0.0
        self._heard_s = dict.fromkeys(range(len(spec.channels)), math.inf)  # set when the source begins

    @property
    def health(self) -> SourceHealth:
        """See `Source.health`."""
        return self._health.now

    def batches(self) -> Iterator[SampleBatch]:
        """See `Source.batches`."""
        self._heard_s = dict.fromkeys(self._heard_s, time.monotonic())
        self._start()
        try:
            ended = False
            while not ended and self._pacer.goes_on():
                items, ended = self._intake.take()
                yield from self._batches(items, ended)
                self._judge_silence()
        finally:
            self._intake.end()
            self._end()

    @abstractmethod
    def _start(self) -> None:
        """Begin to bring readings."""

    @abstractmethod
    def _end(self) -> None:
        """Bring no more."""

    def _batches(self, items: Sequence[Reading | Rejection], ended: bool) -> Iterator[SampleBatch]:
        rejections = [item for item in items if isinstance(item, Rejection)]
        rows: list[Row] = []
        late, now_s = self._alignment.late, time.monotonic()
        for item in items:
            if isinstance(item, Reading):
                self._heard_s.update((channel, now_s) for channel in item.values)
                rows += self._alignment.add(item)
        if ended:
            rows += self._alignment.flush()
        self._health.count(skipped=self._alignment.late - late)
        rows = self._within_rate(rows)
        for start in range(0, len(rows), self._pacer.batch_size):
            yield from self._batch_of(rows[start : start + self._pacer.batch_size], rejections)
            rejections = []
        if rejections:
            yield self._batch(np.empty((0, len(self._channels)), np.float32), np.empty(0), rejections)

    def _within_rate(self, rows: list[Row]) -> list[Row]:
        """The rows that the rate allows; those in between are skipped, and counted."""
        rate_per_s = self._readings.rate_per_s
        if rate_per_s <= 0 or self._readings.interval_s > 0:
            return rows
        kept = []
        for row in rows:
            now_s = time.monotonic()
            if now_s < self._due_s:
                self._health.count(skipped=1)
                continue
            self._due_s = max(self._due_s + 1.0 / rate_per_s, now_s)
            kept.append(row)
        return kept

    def _batch_of(self, rows: Sequence[Row], rejections: Sequence[Rejection]) -> Iterator[SampleBatch]:
        """The samples of some rows; without a sample, the rejections wait for no other."""
        values, moments = np.stack([row.values for row in rows]), np.array([row.at_s for row in rows])
        if self._cutter is None:
            yield self._batch(values, moments, rejections)
            return
        begins = [index for index, row in enumerate(rows) if row.begins]
        for first, end in zip([0, *begins], [*begins, len(rows)], strict=True):
            if first in begins:
                self._cutter.restart()
            windows, _, last = self._cutter.cut(values[first:end], moments[first:end])
            if len(windows) or rejections:
                yield self._batch(windows, last, rejections)
                rejections = []

    def _batch(self, values: np.ndarray, moments: np.ndarray, rejections: Sequence[Rejection]) -> SampleBatch:
        origins = [f"{self.source_id}@{moment_text(moment)}" for moment in moments.tolist()]
        return SampleBatch(self.source_id, self.modality, values, moments, origins, rejections=rejections)

    def _judge_silence(self) -> None:
        """Whether each channel was heard of lately."""
        now_s = time.monotonic()
        silent = [
            self._channels[channel]
            for channel, since_s in self._heard_s.items()
            if now_s - since_s > self._readings.silent_after_s
        ]
        if not silent:
            self._health.is_in("running", only_after=_JUDGED)
            return
        which = "any channel" if len(silent) == len(self._channels) else ", ".join(map(repr, silent[:5]))
        self._health.is_in(
            "silent", f"no reading of {which} for {self._readings.silent_after_s:g} s", only_after=_JUDGED
        )
