"""Rows of several channels whose readings arrive at different times.

With an interval, time is divided into steps of that length, and each step is a row: of each channel its last reading
in the step. Without one, each record is a row. A channel without a reading keeps its last value for `hold_s` (sensors
that report changes only), and is missing after that, which is NaN.

Stamps are not to be trusted. A reading older than the rows already given is too late. One that lies far from the others
is set aside, and accepted once three in a row rise: then the clock was set, or there was a pause, and rows restart.
Where each record is a row, only one that lies far back is put aside: a pause makes no difference there. Rows that are
judged one by one need no order: then each record is a row, also one with an older time.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_RISING_STRAYS = 3
MIN_JUMP_S = 10.0


@dataclass(frozen=True, slots=True)
class Reading:
    """Values of some channels at one moment, seconds since the epoch. `values`: by number of the channel; NaN: none."""

    at_s: float
    values: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Row:
    """Values (channels,) float32 of one moment. `begins`: no earlier reading belongs to the same sequence."""

    at_s: float
    values: NDArray[np.float32]
    begins: bool


class Alignment:
    """Aligner of readings into rows, in the order of time.

    `longest_gap`: steps without a reading that become rows of missing values; after a longer pause rows restart.
    `is_ordered`: whether rows must rise in time; without an interval and held values they need not.
    """

    def __init__(
        self,
        channels: int,
        *,
        interval_s: float,
        hold_s: float,
        lateness_s: float,
        longest_gap: int = 1,
        is_ordered: bool = True,
    ) -> None:
        self._channels, self._interval_s = channels, interval_s
        self._hold_s, self._lateness_s, self._longest_gap = hold_s, lateness_s, longest_gap
        self._is_ordered = is_ordered or interval_s > 0 or hold_s > 0
        self._jump_s = max(MIN_JUMP_S, lateness_s, longest_gap * interval_s, 10 * interval_s)
        self.late = 0  # readings that came after their row
        self._strays: list[Reading] = []
        self._begin()

    def add(self, reading: Reading) -> Iterator[Row]:
        """Yield the rows that are complete with this reading."""
        if not self._is_ordered:
            yield self._row(reading.at_s, reading.values)
            return
        if self._latest_s is not None and self._is_far(reading.at_s - self._latest_s):
            yield from self._put_aside(reading)
            return
        self.late += len(self._strays)
        self._strays.clear()
        yield from self._take(reading)

    def flush(self) -> Iterator[Row]:
        """Yield the remaining rows at the end of the readings."""
        yield from self._rows_before(math.inf)
        if self._strays:
            yield from self._accept_strays()
            yield from self._rows_before(math.inf)

    def _begin(self) -> None:
        self._latest_s: float | None = None
        self._next_step: int | None = None
        self._steps: dict[int, dict[int, float]] = {}
        self._held: dict[int, tuple[float, float]] = {}  # moment and value of each channel's last reading
        self._begins = True

    def _is_far(self, ahead_s: float) -> bool:
        return ahead_s < -self._jump_s or (self._interval_s > 0 and ahead_s > self._jump_s)

    def _put_aside(self, reading: Reading) -> Iterator[Row]:
        if self._strays and reading.at_s < self._strays[-1].at_s:
            self.late += len(self._strays)
            self._strays.clear()
        self._strays.append(reading)
        if len(self._strays) < MIN_RISING_STRAYS:
            return
        yield from self._rows_before(math.inf)
        yield from self._accept_strays()

    def _accept_strays(self) -> Iterator[Row]:
        accepted, self._strays = self._strays, []
        self._begin()
        for one in accepted:
            yield from self._take(one)

    def _take(self, reading: Reading) -> Iterator[Row]:
        is_latest = self._latest_s is None or reading.at_s >= self._latest_s
        if self._interval_s <= 0:
            if not is_latest:
                self.late += 1
                return
            self._latest_s = reading.at_s
            yield self._row(reading.at_s, reading.values)
            return
        step = math.floor(reading.at_s / self._interval_s)
        if self._next_step is not None and step < self._next_step:
            self.late += 1
            return
        self._steps.setdefault(step, {}).update(reading.values)
        self._latest_s = reading.at_s if is_latest else self._latest_s
        if is_latest:
            yield from self._rows_before(math.floor((reading.at_s - self._lateness_s) / self._interval_s))

    def _rows_before(self, end: float) -> Iterator[Row]:
        """Yield the rows of all steps before `end`."""
        for step in sorted(step for step in self._steps if step < end):
            gap = range(self._next_step, step) if self._next_step is not None else range(0)
            if len(gap) > self._longest_gap:
                self._held.clear()
                self._begins, gap = True, range(0)
            for empty in gap:
                yield self._row((empty + 1) * self._interval_s, {})
            yield self._row((step + 1) * self._interval_s, self._steps.pop(step))
            self._next_step = step + 1

    def _row(self, at_s: float, values: Mapping[int, float]) -> Row:
        row = np.full(self._channels, np.nan, dtype=np.float32)
        held = {channel: value for channel, (since_s, value) in self._held.items() if at_s - since_s <= self._hold_s}
        with np.errstate(over="ignore"):  # beyond float32: the sample is rejected for it, not the reading
            for channel, value in (held | dict(values)).items() if self._hold_s > 0 else values.items():
                row[channel] = value
        self._held.update((channel, (at_s, value)) for channel, value in values.items() if not math.isnan(value))
        begins, self._begins = self._begins, False
        return Row(at_s, row, begins)
