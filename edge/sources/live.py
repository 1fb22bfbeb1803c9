"""Readings that arrive on their own: from the receiving thread to batches of rows or windows."""

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
from edge.sources.clock_check import ClockCheck
from edge.sources.health import HealthRecord, SourceHealth
from edge.sources.records import RecordReader
from edge.sources.windows import WindowCutter
from shared.bundle import InputSpec
from shared.errors import SettingsError
from shared.logs import EventLog
from shared.modality import Modality
from shared.samples import Rejection, SampleBatch
from shared.texts import moment_text

MAX_WAITING = 50_000  # readings
FULL_WAIT_S = 5.0  # longest wait of a sender for room
WAKE_S = 0.2

log = EventLog("readings")

_JUDGED = ("running", "silent")  # a source that is not connected reports that instead


class Intake:
    """Bounded queue of readings from the receiving thread; a full queue blocks the sender."""

    def __init__(self) -> None:
        self._items: deque[Reading | Rejection] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._error: Exception | None = None

    def put(self, items: Sequence[Reading | Rejection], most_wait_s: float | None = None) -> int:
        """Add items once there is room. Return the number of old items dropped after `most_wait_s` without room."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or len(self._items) < MAX_WAITING, most_wait_s)
            self._items.extend(items)
            self._changed.notify_all()
            lost = max(0, len(self._items) - MAX_WAITING - len(items))
            for _ in range(lost):
                self._items.popleft()
            return lost

    def end(self) -> None:
        """Close the queue: no more items are added or taken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """Close the queue with an error, which the next `take` raises."""
        self._error = error
        self.end()

    def take(self) -> tuple[list[Reading | Rejection], bool]:
        """Return all items and whether they are the last; wait up to WAKE_S for the first."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._items, WAKE_S)
            if self._error is not None and not self._items:
                raise self._error
            items = list(self._items)
            self._items.clear()
            self._changed.notify_all()
            return items, self._ended and self._error is None


class LiveReadings(ABC):
    """Base of sources of readings: one sample per row (tabular) or per window of rows (series).

    A subclass puts readings into `_intake` between `_start` and `_end`.
    """

    is_paced = True

    def __init__(self, settings: ReadingsBase, modality: Modality, spec: InputSpec, pacer: Pacer) -> None:
        """Check the channels. Raises SettingsError for a channel that the bundle does not have."""
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
            is_ordered=is_series,
        )
        self._is_series = is_series
        self._due_s = 0.0
        self._clocks = ClockCheck(spec.channels)
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
                self._judge_clocks()
        finally:
            self._intake.end()
            self._end()

    def _record_reader(self, numbers: Sequence[int]) -> RecordReader:
        """Return the reader of the records that hold these channels. Raises SettingsError for a wrong path."""
        are_rows = self._readings.records_are_rows and len(numbers) == len(self._channels)
        return RecordReader(
            self._readings,
            self._channels,
            numbers,
            categories=self._spec.categories,
            decimal=self._spec.decimal,
            whole_rows=are_rows and not self._is_series,
            keeps_places=are_rows and self._is_series,
            on_left_out=self._health.leave_out,
        )

    @abstractmethod
    def _start(self) -> None:
        """Start receiving readings."""

    @abstractmethod
    def _end(self) -> None:
        """Stop receiving readings."""

    def _batches(self, items: Sequence[Reading | Rejection], ended: bool) -> Iterator[SampleBatch]:
        rejections = [item for item in items if isinstance(item, Rejection)]
        rows: list[Row] = []
        late, now_s, wall_s = self._alignment.late, time.monotonic(), time.time()
        for item in items:
            if isinstance(item, Reading):
                self._heard_s.update((channel, now_s) for channel in item.values)
                self._clocks.add(item.values, item.at_s - wall_s, now_s)
                rows += self._alignment.add(item)
        if ended:
            rows += self._alignment.flush()
        newly_late = self._alignment.late - late
        self._health.leave_out("came after its row", newly_late, skipped=newly_late)
        rows = self._within_rate(rows)
        for start in range(0, len(rows), self._pacer.batch_size):
            yield from self._batch_of(rows[start : start + self._pacer.batch_size], rejections)
            rejections = []
        if rejections:
            yield self._batch(np.empty((0, len(self._channels)), np.float32), np.empty(0), rejections)

    def _within_rate(self, rows: list[Row]) -> list[Row]:
        """Return the rows that the rate allows; others are skipped and counted."""
        rate_per_s = self._readings.rate_per_s
        if rate_per_s <= 0 or self._readings.interval_s > 0:
            return rows
        kept = []
        for row in rows:
            now_s = time.monotonic()
            if now_s < self._due_s:
                self._health.leave_out("beyond rate_per_s", skipped=1)
                continue
            self._due_s = max(self._due_s + 1.0 / rate_per_s, now_s)
            kept.append(row)
        return kept

    def _batch_of(self, rows: Sequence[Row], rejections: Sequence[Rejection]) -> Iterator[SampleBatch]:
        """Yield the samples of rows; rejections are passed on even without a sample."""
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
        """Update the health if a channel has had no reading for `silent_after_s`."""
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
        left_out = ", ".join(f"{count} x {reason}" for reason, count in self.health.left_out.items())
        detail = f"no reading of {which} for {self._readings.silent_after_s:g} s"
        self._health.is_in("silent", f"{detail} (left out: {left_out})" if left_out else detail, only_after=_JUDGED)

    def _judge_clocks(self) -> None:
        """Update and log by how much the time stamps of readings are off."""
        text = self._clocks.judge(time.monotonic())
        if text is not None and self._health.set_clock(text):
            log.warning("sensor_clock", source=self.source_id, finding=text or "right again")
