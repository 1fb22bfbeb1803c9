"""Watch over one stream: the warning when it differs from the training data, and the alarms that it stands for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from edge.alarms import Alarm, AlarmDelivery, StreamWarning
from edge.routing.drift_watch import DriftWatch
from edge.routing.router import ALARM, AlarmLevel
from edge.routing.stream_monitor import StreamMonitor, StreamState, WatchedBatch
from edge.screener import ScreenedBatch, Screener
from shared.files import write_durably
from shared.logs import EventLog, Throttle
from shared.samples import SampleBatch

FOLDER = "promises"  # as earlier versions named it
HELD_LOG_S = 3600.0  # between two log lines of alarms that a warning stands for

log = EventLog("pipeline")


class StreamWatch:
    """Passes the alarms of one source on, or one warning if the stream differs from the training data.

    Two tests give one warning. The monitor finds floods of alarms and suspicious samples within a minute, and its
    warning stands for the alarms. The drift watch, if its mode is on, finds slow changes of scores and channels, and
    alarms go on.
    """

    def __init__(
        self,
        source_id: str,
        state_dir: Path,
        forward_p_value: float,
        delivery: AlarmDelivery,
        *,
        tests_drift: bool = False,
    ) -> None:
        self._source_id, self._path = source_id, state_dir / FOLDER / f"{source_id}.json"
        self._forward_p_value, self._delivery = forward_p_value, delivery
        self._monitor: StreamMonitor | None = None
        self._drift = DriftWatch(source_id, state_dir) if tests_drift else None
        self._saved = ""
        self._alarm_log, self._held_log = Throttle(), Throttle(HELD_LOG_S)

    @property
    def warning(self) -> str:
        """How the stream differs from the training data; empty while it does not."""
        flood = self._monitor.warning if self._monitor is not None else ""
        return flood or (self._drift.finding if self._drift is not None else "")

    @property
    def _is_flooded(self) -> bool:
        return self._monitor is not None and bool(self._monitor.warning)

    def begin(self, screener: Screener) -> None:
        """Go on from the state of the last run, if it was of the same bundle."""
        self._monitor = self._new_monitor(screener)
        if self._drift is not None:
            self._drift.begin(screener)
        try:
            self._saved = self._path.read_text(encoding="utf-8")
            self._monitor.resume(StreamState.model_validate_json(self._saved))
        except FileNotFoundError:
            return
        except (OSError, ValueError, ValidationError) as error:
            log.warning("stream_state_unreadable", path=self._path, error=error, advice="it is counted from now on")
        if self._monitor.warning:
            self._delivery.hold(self._source_id)

    def judge(
        self,
        batch: SampleBatch,
        screened: ScreenedBatch,
        screener: Screener,
        codes: np.ndarray,
        level: AlarmLevel,
        raised: Sequence[Alarm],
    ) -> None:
        """Compare a routed batch with the expected shares, and hand its alarms on.

        Args:
            batch: Samples of the source.
            screened: Result of `screener`.
            screener: Screener of the batch.
            codes: Routes (kept,).
            level: Expected share of alarms, and the rate of the source.
            raised: Alarms of the batch.
        """
        monitor = self._monitor
        if monitor is None or monitor.bundle_id != screener.bundle_id:
            monitor = self._replace(screener)
        if self._drift is not None:
            self._drift.observe(batch, screened, screener, level.rate_per_s)
        if not screened.unscored:  # a failing engine is a problem of its own
            is_array = isinstance(batch.values, np.ndarray) and batch.values.dtype.kind == "f"
            watched = WatchedBatch(
                suspicious=screened.p_values <= self._forward_p_value,
                alarms=codes == ALARM,
                alarm_p_value=level.p_value,
                values=np.asarray(batch.values)[screened.kept] if is_array else None,
                rate_per_s=level.rate_per_s,
            )
            if monitor.observe(watched):
                self._announce(monitor, raised)
        for alarm in raised:
            self._delivery.tell(alarm)
            self._log_alarm(alarm)

    def save(self) -> None:
        """Write the state if it changed; raises OSError."""
        if self._drift is not None:
            self._drift.save()
        if self._monitor is None:
            return
        text = self._monitor.state().model_dump_json()
        if text != self._saved:
            write_durably(self._path, text.encode())
            self._saved = text

    def _new_monitor(self, screener: Screener) -> StreamMonitor:
        return StreamMonitor(screener.bundle_id, screener.spec, screener.ranges, self._forward_p_value)

    def _replace(self, screener: Screener) -> StreamMonitor:
        """Start new counts for another bundle."""
        if self._is_flooded:
            self._delivery.release(self._source_id)
        self._monitor = self._new_monitor(screener)
        return self._monitor

    def _announce(self, monitor: StreamMonitor, raised: Sequence[Alarm]) -> None:
        """Send and log once that the warning began or ended."""
        is_raised = bool(monitor.warning)
        text = monitor.warning or "the stream matches the training data again"
        warning = StreamWarning(self._source_id, is_raised, text, monitor.bundle_id, monitor.episode.alarms)
        if is_raised:
            self._delivery.hold(self._source_id, warning)
            log.warning("differs_from_training", source=self._source_id, bundle=monitor.bundle_id, finding=text)
        else:
            self._delivery.release(self._source_id, warning)
            log.info("matches_training_again", source=self._source_id, bundle=monitor.bundle_id)

    def _log_alarm(self, alarm: Alarm) -> None:
        count = (self._held_log if self._is_flooded else self._alarm_log).allow("alarm")
        if count:
            log.warning(
                "alarm",
                source=self._source_id,
                origin=alarm.origin,
                p_value=alarm.p_value,
                sample_id=alarm.sample_id,
                alarms=count,
            )
