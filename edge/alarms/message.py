"""Alarms and their messages."""

import json
from dataclasses import dataclass

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
