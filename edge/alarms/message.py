"""Alarms and their messages."""

import json
import time
from dataclasses import dataclass, field

from shared.texts import moment_text


@dataclass(frozen=True, slots=True)
class Alarm:
    """One sample that raised an alarm. `sample_id` is empty where the sample does not travel."""

    source_id: str
    origin: str
    p_value: float
    captured_at_s: float
    sample_id: str
    bundle_id: str


@dataclass(frozen=True, slots=True)
class Message:
    """The most suspicious alarm of a group. `further`: number of other alarms in the group."""

    alarm: Alarm
    further: int = 0

    @property
    def source_id(self) -> str:
        """Source of the alarm."""
        return self.alarm.source_id

    def body(self, alarm_id: str, device_id: str) -> str:
        """Return the message as JSON. `alarm_id` is the same at every attempt."""
        alarm = self.alarm
        return json.dumps(
            {
                "event": "alarm",
                "alarm_id": alarm_id,
                "device_id": device_id,
                "source_id": alarm.source_id,
                "origin": alarm.origin,
                "captured_at": moment_text(alarm.captured_at_s),
                "p_value": alarm.p_value,
                "sample_id": alarm.sample_id,
                "bundle_id": alarm.bundle_id,
                "further_alarms": self.further,
            }
        )


@dataclass(frozen=True, slots=True)
class StreamWarning:
    """Message that a stream differs from the training data, or no longer does.

    It stands for the alarms of the source from `is_raised` until the warning of the end. `alarms`: number of these
    alarms up to this warning.
    """

    source_id: str
    is_raised: bool
    text: str
    bundle_id: str
    alarms: int = 0
    raised_at_s: float = field(default_factory=time.time)

    def body(self, alarm_id: str, device_id: str) -> str:
        """Return the message as JSON. `alarm_id` is the same at every attempt."""
        return json.dumps(
            {
                "event": "warning",
                "warning": "differs_from_training",
                "state": "raised" if self.is_raised else "ended",
                "alarm_id": alarm_id,
                "device_id": device_id,
                "source_id": self.source_id,
                "raised_at": moment_text(self.raised_at_s),
                "text": self.text,
                "bundle_id": self.bundle_id,
                "alarms": self.alarms,
            }
        )
