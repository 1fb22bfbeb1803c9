"""Calibration of one source that follows its normal scores, fed by routes and verdicts.

Samples that are not withheld count as normal. Withheld ones wait for the cloud's verdict: a normal one enters the
reservoir, an anomalous one never does. An anomalous verdict on a sample that counts as normal takes it out. Audits are
a random share of the accepted samples, so an anomalous audit takes out all those that it stands for.
`shared/adaptive_calibration.py` describes the estimate and its limits.
"""

import threading
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.routing.router import ACCEPT, AUDIT
from edge.routing.state_file import StateFile
from edge.screener import UNSCORED, ScreenedBatch, Screener
from edge.settings import DriftSettings
from shared.adaptive_calibration import AdaptationLimits, AdaptiveCalibration
from shared.calibration import MIN_P_VALUE
from shared.calibration_modes import UNKNOWN
from shared.errors import DataError
from shared.logs import EventLog
from shared.samples import Decision, Verdict
from shared.status import AdaptationStatus

FOLDER = "calibrations"
MAX_EXPECTED = 4096  # sent samples whose verdicts are awaited
MOVES_PER_MEMORY = 200
NOTABLE_MOVE = 0.1  # nats

log = EventLog("calibration")


@dataclass(frozen=True, slots=True)
class _Sent:
    mode: int
    surprise: float
    weight: float  # samples that it stands for among the normal ones, 0 if it is withheld


class CalibrationFollower:
    """Adapted p-values of one source. Its own thread calls `adapt` and `expect`; all else is safe from any thread."""

    def __init__(
        self,
        source_id: str,
        state_dir: Path,
        settings: DriftSettings,
        limits: AdaptationLimits,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source_id, self._file = source_id, StateFile(state_dir / FOLDER / f"{source_id}.npz")
        self.settings, self._limits, self._clock = settings, limits, clock
        self._calibration_id, self._by_mode = "", dict[int, AdaptiveCalibration]()
        self._sent = OrderedDict[bytes, _Sent]()
        self._surprise = np.zeros(0)
        self._modes: NDArray[np.int64] = np.zeros(0, np.int64)
        self._withheld: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._fresh, self._since_s, self._cleared = 0, 0.0, 0
        self._has_moved = False
        self._verdicts: deque[Verdict] = deque(maxlen=MAX_EXPECTED)
        self._lock = threading.Lock()

    @property
    def is_adapting(self) -> bool:
        """Whether p-values may differ from those of training."""
        return self.settings.mode == "adapt"

    def adapt(self, screened: ScreenedBatch, screener: Screener, rate_per_s: float) -> ScreenedBatch:
        """Return the batch with adapted p-values, and count its samples; `rate_per_s`: 0 while unknown."""
        if not self.is_adapting or not len(screened.scores):
            self._surprise = np.zeros(0)
            return screened
        with self._lock:
            return self._adapt(screened, screener, rate_per_s)

    def _adapt(self, screened: ScreenedBatch, screener: Screener, rate_per_s: float) -> ScreenedBatch:
        if screener.calibration_id != self._calibration_id:
            self._restart(screener.calibration_id)
        self._take_verdicts()
        found = screener.modes(screened)
        modes = np.zeros(len(screened.scores), np.int64) if found is None else found
        surprise = screener.calibration.surprise(screened.scores, found)
        p_values, has_score = screened.p_values.copy(), screened.scores < UNSCORED
        withheld = np.zeros(len(surprise), np.bool_)
        memory, name = rate_per_s * self.settings.memory_s, self._name()
        for mode in np.unique(modes).tolist():
            rows = (modes == mode) & has_score
            if mode == UNKNOWN or not rows.any():
                continue
            calibration = self._of_mode(mode, screener, known=found is not None)
            if self._has_moved:
                p_values[rows] = np.maximum(calibration.p_values(surprise[rows]), MIN_P_VALUE)
            if not self.settings.frozen:
                withheld[rows] = calibration.observe(surprise[rows], memory)
        is_counted = has_score & (not self.settings.frozen)
        self._surprise, self._modes, self._withheld = np.where(is_counted, surprise, np.nan), modes, withheld
        self._move(len(surprise), max(memory, self._limits.memory))
        return replace(screened, p_values=p_values, calibration_id=name)

    def expect(self, sample_ids: Mapping[int, uuid.UUID], codes: NDArray[np.int8], audit_share: float) -> None:
        """Note the samples of the last batch that are sent, by place, with their routes (kept,)."""
        if not len(self._surprise):
            return
        with self._lock:
            for place, sample_id in sample_ids.items():
                surprise, mode, code = float(self._surprise[place]), int(self._modes[place]), codes[place]
                if code != ACCEPT and mode in self._by_mode and np.isfinite(surprise):
                    stands_for = 1.0 / audit_share if code == AUDIT and audit_share > 0 else 1.0
                    weight = 0.0 if self._withheld[place] else stands_for
                    self._sent[sample_id.bytes] = _Sent(mode, surprise, weight)
            while len(self._sent) > MAX_EXPECTED:
                self._sent.popitem(last=False)

    def learn(self, verdicts: Sequence[Verdict]) -> None:
        """Take verdicts of any source; those of other sources and of unknown samples are ignored."""
        if not self.is_adapting:
            return
        with self._lock:
            self._verdicts.extend(verdict for verdict in verdicts if verdict.sample_id.bytes in self._sent)

    def status(self) -> AdaptationStatus:
        """Return mode, and how far and since when p-values lie from those of training."""
        with self._lock:
            return AdaptationStatus(
                mode=self.settings.mode,
                frozen=self.settings.frozen,
                factor=round(float(np.exp(self._moved())), 3),
                since_s=self._since_s,
                cleared=self._cleared,
            )

    def begin(self, screener: Screener) -> None:
        """Go on from the state of the last run, if it was of the same calibration."""
        self._restart(screener.calibration_id)
        if not self.is_adapting:
            return
        try:
            arrays = self._file.read(self._calibration_id)
            if arrays is not None:
                self._resume(arrays)
        except Exception as error:  # see `StateFile.read`
            self._restart(screener.calibration_id)
            log.warning("state_unreadable", path=self._file.path, error=error, advice="p-values are those of training")

    def save(self) -> None:
        """Write the state if it changed; raises OSError."""
        if not self.is_adapting or not self._by_mode:
            return
        with self._lock:
            calibration_id, arrays = self._calibration_id, self._arrays()
        self._file.write(calibration_id, arrays)

    def _of_mode(self, mode: int, screener: Screener, *, known: bool) -> AdaptiveCalibration:
        calibration = self._by_mode.get(mode)
        if calibration is None:
            size = screener.calibration.held_out(mode if known else UNKNOWN)
            calibration = self._by_mode[mode] = AdaptiveCalibration(size, self._limits)
        return calibration

    def _move(self, count: int, memory: float) -> None:
        """Move the curves after enough new samples; a frozen one stays where it is."""
        self._fresh += count
        if self.settings.frozen or self._fresh < memory / MOVES_PER_MEMORY:
            return
        self._fresh = 0
        for calibration in self._by_mode.values():
            calibration.move()
        self._has_moved = True
        is_notable = abs(self._moved()) >= NOTABLE_MOVE
        if is_notable and not self._since_s:
            self._since_s = self._clock()
        elif not is_notable:
            self._since_s = 0.0

    def _take_verdicts(self) -> None:
        while self._verdicts:
            verdict = self._verdicts.popleft()
            sent = self._sent.pop(verdict.sample_id.bytes, None)
            if sent is None or verdict.decision is Decision.UNDECIDED or self.settings.frozen:
                continue
            calibration, is_normal = self._by_mode[sent.mode], verdict.decision is Decision.NORMAL
            if not sent.weight:
                calibration.answer([sent.surprise], [is_normal])
                self._cleared += is_normal
            elif not is_normal:
                calibration.reject(sent.surprise, sent.weight)

    def _name(self) -> str:
        """Return the id of the calibration in use: that of training, and by how many nats it moved."""
        if not self._has_moved:
            return self._calibration_id
        return f"{self._calibration_id}{self._moved():+.1f}"

    def _moved(self) -> float:
        """Return how far the mode that moved farthest lies from training, in nats of log p."""
        return max((calibration.moved for calibration in self._by_mode.values()), key=abs, default=0.0)

    def _restart(self, calibration_id: str) -> None:
        self._calibration_id, self._has_moved = calibration_id, False
        self._by_mode, self._fresh, self._since_s, self._cleared = {}, 0, 0.0, 0
        self._sent.clear()

    def _arrays(self) -> dict[str, NDArray[np.generic]]:
        arrays: dict[str, NDArray[np.generic]] = {
            "facts": np.array([self._has_moved, self._since_s, self._cleared], dtype=np.float64),
            "sent_ids": np.frombuffer(b"".join(self._sent), dtype=np.uint8).reshape(-1, 16),
            "sent": np.array([(item.mode, item.surprise, item.weight) for item in self._sent.values()]).reshape(-1, 3),
        }
        for mode, calibration in self._by_mode.items():
            arrays |= {f"mode{mode}.{name}": array for name, array in calibration.to_arrays().items()}
        return arrays

    def _resume(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        modes = sorted({int(name.partition(".")[0].removeprefix("mode")) for name in arrays if name.startswith("mode")})
        for mode in modes:
            prefix = f"mode{mode}."
            own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            self._by_mode[mode] = AdaptiveCalibration.from_arrays(own, self._limits)
        moved, self._since_s, cleared = (float(value) for value in arrays["facts"])
        self._has_moved, self._cleared = bool(moved), int(cleared)
        sent = np.asarray(arrays["sent"], dtype=np.float64)
        if not set(sent[:, 0].astype(int).tolist()) <= set(modes):
            raise DataError("a sent sample is of a mode without a calibration")
        for sample_id, (mode, surprise, weight) in zip(arrays["sent_ids"], sent.tolist(), strict=True):
            self._sent[sample_id.tobytes()] = _Sent(int(mode), surprise, weight)
