"""Monitor of one stream: are alarms and suspicious samples as frequent as on training data?

Normal samples have p-values that are uniform, so at most `forward_p_value` of them are suspicious, and
`false_alarms_per_day` of a day's samples are alarms. The monitor counts both over the last WINDOW_BLOCKS blocks of
samples: at least the last 200 samples, and at a high rate those of the last minute. It warns if

* the share is so far above TOLERANCE times the expected one that chance gives it less often than once in a million
  windows, by Chernoff's bound on the tail of the binomial distribution,
* it is that high in at least half of the blocks, so that one short event is an alarm, not a warning, and
* for alarms, at least MIN_ALARM_SHARE of all samples are alarms.

Overlapping windows share readings; n windows count as n * stride / length. The warning ends when the shares of the
last blocks are within these limits again.

Source of the bound: Chernoff, "A measure of asymptotic efficiency for tests of a hypothesis based on the sum of
observations" (1952), theorem 1.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from shared.bundle import InputSpec
from shared.preprocessing import ChannelRanges, ReadingSums, measured_positions
from shared.status import DRIFT_WARNING

WINDOW_BLOCKS, MIN_BLOCK_SAMPLES, WINDOW_S = 20, 10, 60.0
MIN_SAMPLES = 20
TOLERANCE = 2.0  # a calibration is fitted on a limited number of samples, so its p-values are not exact
MIN_ALARM_SHARE = 0.2
MAX_CHANCE = 1e-6


@dataclass(frozen=True, slots=True)
class WatchedBatch:
    """Screened samples of one batch, as the monitor counts them.

    `suspicious`, `alarms`: (n,) bool. `alarm_p_value`: expected share of alarms. `values`: (n, ...) raw samples.
    `rate_per_s`: samples of the source per second, 0 while unknown.
    """

    suspicious: NDArray[np.bool_]
    alarms: NDArray[np.bool_]
    alarm_p_value: float
    values: NDArray[Any] | None
    rate_per_s: float


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """Numbers of samples. `expected_alarms` is the expected number of alarms on normal data."""

    samples: int = 0
    suspicious: int = 0
    alarms: int = 0
    expected_alarms: float = 0.0

    def plus(self, other: "SampleCounts") -> "SampleCounts":
        """Return the sum of both."""
        return SampleCounts(
            self.samples + other.samples,
            self.suspicious + other.suspicious,
            self.alarms + other.alarms,
            self.expected_alarms + other.expected_alarms,
        )


class StreamState(BaseModel):
    """State of a monitor on disk. `episode` counts since the warning began; `warning` is empty without one."""

    model_config = ConfigDict(extra="ignore")

    bundle_id: str
    blocks: list[SampleCounts] = []
    episode: SampleCounts = SampleCounts()
    warning: str = ""


class StreamMonitor:
    """Monitor of one source that runs one bundle. Used by one thread; `warning` may be read by others."""

    def __init__(
        self,
        bundle_id: str,
        spec: InputSpec,
        ranges: ChannelRanges | None,
        forward_p_value: float,
    ) -> None:
        self.bundle_id, self.warning, self.episode = bundle_id, "", SampleCounts()
        self._unit, self._ranges, self._forward_p_value = unit_of(spec), ranges, forward_p_value
        self._new_points = spec.window_stride or spec.window_length or 1
        length = spec.window_length if spec.channels else 0  # clips are no windows of a stream of readings
        self._independence = min(1.0, spec.window_stride / length) if length and spec.window_stride else 1.0
        self._measured = measured_positions(spec) if ranges is not None else np.zeros(0, np.intp)
        self._begins_block = False
        self._blocks: deque[tuple[SampleCounts, ReadingSums | None]] = deque(maxlen=WINDOW_BLOCKS)

    def observe(self, batch: WatchedBatch) -> bool:
        """Count a batch; return whether the warning began or ended with it."""
        count = len(batch.suspicious)
        if not count:
            return False
        block_samples = max(MIN_BLOCK_SAMPLES, math.ceil(batch.rate_per_s * WINDOW_S / WINDOW_BLOCKS))
        step = max(math.ceil(count / WINDOW_BLOCKS), min(block_samples, count))
        self._begins_block = False
        for start in range(0, count, step):
            self._add(batch, slice(start, start + step), block_samples)
        before = self.warning
        # At a high rate, once for each block: single samples would cost more here than in the screener.
        if block_samples == MIN_BLOCK_SAMPLES or self._begins_block or len(self._blocks) == 1:
            self._judge()
        return bool(before) != bool(self.warning)

    def state(self) -> StreamState:
        """Return what a restart needs."""
        return StreamState(
            bundle_id=self.bundle_id,
            blocks=[counts for counts, _ in self._blocks],
            episode=self.episode,
            warning=self.warning,
        )

    def resume(self, state: StreamState) -> None:
        """Go on from the state of an earlier run, unless it was of another bundle."""
        if state.bundle_id == self.bundle_id:
            self.warning, self.episode = state.warning, state.episode
            self._blocks.extend((counts, None) for counts in state.blocks[-WINDOW_BLOCKS:])

    def _add(self, batch: WatchedBatch, part: slice, block_samples: int) -> None:
        suspicious, alarms = batch.suspicious[part], batch.alarms[part]
        counts = SampleCounts(
            samples=len(suspicious),
            suspicious=int(np.count_nonzero(suspicious)),
            alarms=int(np.count_nonzero(alarms)),
            expected_alarms=len(suspicious) * batch.alarm_p_value,
        )
        sums = self._sums(batch.values[part]) if batch.values is not None and self._ranges is not None else None
        if self.warning:
            self.episode = self.episode.plus(counts)
        if self._blocks and self._blocks[-1][0].samples + counts.samples <= block_samples:
            last, last_sums = self._blocks.pop()
            counts = last.plus(counts)
            sums = last_sums.plus(sums) if sums is not None and last_sums is not None else sums or last_sums
        else:
            self._begins_block = True
        self._blocks.append((counts, sums))

    def _sums(self, values: NDArray[Any]) -> ReadingSums:
        """Return the sums of measured readings; of overlapping windows only the points that are new in each."""
        assert self._ranges is not None
        sums = ReadingSums.empty(self._ranges.mean)
        readings = values[:, -self._new_points :] if values.ndim == 3 else values
        sums.add(readings.reshape(-1, values.shape[-1])[:, self._measured])
        return sums

    def _judge(self) -> None:
        window = _total(self._blocks)
        by_alarms = self._is_far_above(window, "alarms")
        is_far = window.samples >= MIN_SAMPLES and (by_alarms or self._is_far_above(window, "suspicious"))
        if is_far and not self.warning:
            self.episode = window
        if is_far or (self.warning and not self._is_as_expected(window)):
            self.warning = self._text()
        else:
            self.warning, self.episode = "", SampleCounts()

    def _is_far_above(self, window: SampleCounts, kind: str) -> bool:
        expected = self._expected(window, kind)
        floor = MIN_ALARM_SHARE if kind == "alarms" else 0.0
        tolerated = min(1.0, TOLERANCE * expected)
        share = getattr(window, kind) / max(window.samples, 1)
        if share < floor or not 0.0 < tolerated < share:
            return False
        evidence = window.samples * self._independence * divergence(share, tolerated)
        high = sum(getattr(counts, kind) > tolerated * counts.samples for counts, _ in self._blocks)
        return evidence > -math.log(MAX_CHANCE) and 2 * high >= len(self._blocks)

    def _is_as_expected(self, window: SampleCounts) -> bool:
        alarms = max(MIN_ALARM_SHARE / 2, TOLERANCE * self._expected(window, "alarms"))
        suspicious = TOLERANCE * self._expected(window, "suspicious")
        return window.alarms <= alarms * window.samples and window.suspicious <= suspicious * window.samples

    def _expected(self, window: SampleCounts, kind: str) -> float:
        """Return the expected share of alarms or suspicious samples."""
        alarms = window.expected_alarms / max(window.samples, 1)
        return alarms if kind == "alarms" else max(self._forward_p_value, alarms)

    def _text(self) -> str:
        """Return the warning: the counts since it began, and the channels that differ most."""
        episode, unit = self.episode, self._unit
        if episode.alarms >= MIN_ALARM_SHARE * episode.samples:
            found = f"{episode.alarms} of {episode.samples} {unit} are alarms"
        else:
            limit = f"{100 * self._forward_p_value:.3g} %"
            found = f"{episode.suspicious} of {episode.samples} {unit} are suspicious (expected: at most {limit})"
        return f"{found}; {self._difference()}"

    def _difference(self) -> str:
        if self._ranges is None:
            return f"the {self._unit} {DRIFT_WARNING}: check camera, light and position, or retrain"
        sums = [sums for _, sums in self._blocks if sums is not None]
        if not sums:
            return self.warning.partition("; ")[2]
        total = sums[0]
        for one in sums[1:]:
            total = total.plus(one)
        named = self._ranges.differences(total)
        if named:
            return f"the readings {DRIFT_WARNING}: {', '.join(named)}"
        return f"the readings {DRIFT_WARNING}, though each channel is within its normal range"


def unit_of(spec: InputSpec) -> str:
    """Return the word for several samples of a bundle."""
    if spec.channels:
        return "windows" if spec.window_length else "rows"
    return "clips" if spec.window_length else "images"


def divergence(share: float, expected: float) -> float:
    """Return the Kullback-Leibler divergence of two Bernoulli distributions in nats, for 0 < expected < 1.

    A share of at least `share` in n independent samples has the probability exp(-n * divergence) at most.
    """
    hit = share * math.log(share / expected) if share > 0 else 0.0
    miss = (1 - share) * math.log((1 - share) / (1 - expected)) if share < 1 else 0.0
    return hit + miss


def _total(blocks: deque[tuple[SampleCounts, ReadingSums | None]]) -> SampleCounts:
    total = SampleCounts()
    for counts, _ in blocks:
        total = total.plus(counts)
    return total
