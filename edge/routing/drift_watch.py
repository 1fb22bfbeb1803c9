"""Sequential tests of one source for drift: of its scores, and of its channels.

Both go on from the state of the last run of the same calibration. Tested samples are spaced, so that
overlapping windows share no reading and a fast source is tested once a second. `shared/drift_detector.py` states the
rate of false alarms: with `limit_of` at most one in FALSE_ALARM_DAYS days for the scores of a source, and one for its
channels, if its samples are exchangeable. Readings that follow a day or another slow rhythm are not, and count as
drift until the detector has seen the rhythm.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.routing.state_file import StateFile
from edge.screener import UNSCORED, ScreenedBatch, Screener
from shared.calibration_modes import CalibrationByMode
from shared.drift_detector import BINS, DriftDetector
from shared.logs import EventLog
from shared.preprocessing import measured_positions
from shared.samples import SampleBatch
from shared.status import DRIFT_WARNING

FOLDER = "drift"
FALSE_ALARM_DAYS = 365.0
MIN_LIMIT = 10_000.0  # tested samples between false alarms, for slow sources
MAX_TESTS_PER_S = 1.0
MAX_TESTS_PER_BATCH = 32  # also while the rate of the source is unknown
MATCHING = 0.12  # a drift has ended if no mean of `DriftDetector.recent` is farther from 0
MAX_NAMED = 3

log = EventLog("drift")


class DriftWatch:
    """Detectors of one source. Its own thread calls `observe`, another one `save`; `finding` may be read by any."""

    def __init__(self, source_id: str, state_dir: Path) -> None:
        self._source_id, self._file = source_id, StateFile(state_dir / FOLDER / f"{source_id}.npz")
        self.finding = ""
        self._calibration_id, self._seen = "", 0
        self._channels: tuple[str, ...] = ()
        self._measured = np.zeros(0, np.intp)
        self._spacing = 1
        self._detectors: dict[str, DriftDetector] = {}
        self._drifting: set[str] = set()

    def begin(self, screener: Screener) -> None:
        """Go on from the state of the last run, if it was of the same calibration."""
        self._restart(screener)
        try:
            arrays = self._file.read(self._calibration_id)
            if arrays is not None:
                self._resume(arrays)
        except Exception as error:  # see `StateFile.read`
            self._restart(screener)
            log.warning("state_unreadable", path=self._file.path, error=error, advice="drift is tested from now on")

    def observe(self, batch: SampleBatch, screened: ScreenedBatch, screener: Screener, rate_per_s: float) -> None:
        """Test a screened batch; `rate_per_s` of the source, 0 while unknown."""
        if screener.calibration_id != self._calibration_id:
            self._restart(screener)
        spacing = max(self._spacing, math.ceil(rate_per_s / MAX_TESTS_PER_S))
        spacing = max(spacing, len(screened.scores) // MAX_TESTS_PER_BATCH)
        places = np.arange((-self._seen) % spacing, len(screened.scores), spacing)
        self._seen += len(screened.scores)
        places = places[screened.scores[places] < UNSCORED]
        if not len(places):
            return
        modes = screener.modes(screened)
        surprise = screener.calibration.surprise(screened.scores[places], None if modes is None else modes[places])
        self._test("scores", surprise[:, np.newaxis])
        if self._channels:
            values = np.asarray(batch.values)[screened.kept[places]]
            readings = values[:, -1] if values.ndim == 3 else values
            self._test("readings", readings[:, self._measured])
        self._judge(limit_of(rate_per_s / spacing if rate_per_s > 0 else MAX_TESTS_PER_S))

    def save(self) -> None:
        """Write the state if it changed; raises OSError."""
        calibration_id = self._calibration_id  # read first, as `_restart` sets it last
        detectors = self._detectors
        if not detectors:
            return
        arrays: dict[str, NDArray[np.generic]] = {"drifting": np.array(sorted(self._drifting), dtype=np.str_)}
        for name, detector in detectors.items():
            arrays |= {f"{name}.{key}": array for key, array in detector.to_arrays().items()}
        self._file.write(calibration_id, arrays)

    def _restart(self, screener: Screener) -> None:
        spec, ranges = screener.spec, screener.ranges
        self._seen, self._drifting, self.finding = 0, set(), ""
        self._spacing = max(1, math.ceil(spec.window_length / max(spec.window_stride, 1))) if spec.channels else 1
        detectors = {"scores": _of_scores(screener.calibration)}
        self._channels = ranges.channels if ranges is not None else ()
        if ranges is not None:
            self._measured = measured_positions(spec)
            inner = np.linspace(ranges.low, ranges.high, BINS - 1, axis=1)
            detectors["readings"] = DriftDetector.begin(inner)
        self._detectors = detectors
        self._calibration_id = screener.calibration_id

    def _resume(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        for name, detector in self._detectors.items():
            prefix = f"{name}."
            own = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
            detector.resume(own)
        self._drifting = {str(name) for name in arrays["drifting"]} & set(self._detectors)
        self.finding = self._text()

    def _test(self, name: str, values: NDArray[np.float64]) -> None:
        self._detectors[name].observe(values, learns=name not in self._drifting)

    def _judge(self, limit: float) -> None:
        before = set(self._drifting)
        for name, detector in self._detectors.items():
            if name in self._drifting:
                if np.abs(detector.recent).max() <= MATCHING:
                    self._drifting.discard(name)
                    detector.capital[:] = 0.0
            elif detector.level >= limit:
                self._drifting.add(name)
        if before != self._drifting:
            self.finding = self._text()
            log.warning(
                "drift" if self._drifting else "drift_ended",
                source=self._source_id,
                of=",".join(sorted(self._drifting)),
                finding=self.finding,
            )

    def _text(self) -> str:
        """Return the finding with the channels that drift most; empty without drift."""
        if "readings" not in self._drifting:
            return f"the scores {DRIFT_WARNING}; no channel drifts" if self._drifting else ""
        shares = self._detectors["readings"].shares()
        most = np.argsort(-shares)[:MAX_NAMED]
        named = ", ".join(self._channels[place] for place in most if shares[place] >= shares[most[0]] / 100)
        scores = "and the scores drift" if "scores" in self._drifting else "drift; the scores do not"
        return f"the readings {DRIFT_WARNING}: {named} {scores}"


def limit_of(tests_per_s: float) -> float:
    """Return the limit of a detector's capital that gives one false alarm in FALSE_ALARM_DAYS days at most."""
    return max(MIN_LIMIT, FALSE_ALARM_DAYS * 86_400.0 * min(tests_per_s, MAX_TESTS_PER_S))


def _of_scores(calibration: CalibrationByMode) -> DriftDetector:
    """Return a detector of scores whose reference is the calibration of training."""
    edges = -np.log1p(-np.arange(1, BINS) / BINS)[np.newaxis]
    parts = [*calibration.by_mode.values(), *([calibration.rest] if calibration.rest is not None else [])]
    surprise = np.concatenate([part.surprise(part.scores) for part in parts])
    bins = (surprise[:, np.newaxis] > edges).sum(axis=1)
    return DriftDetector.begin(edges, np.bincount(bins, minlength=BINS)[np.newaxis].astype(np.float64))
