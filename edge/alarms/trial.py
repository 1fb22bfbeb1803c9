"""Test messages to alarm sinks."""

import json
import time
import uuid
from collections.abc import Iterator, Sequence

from edge.alarms.outbox import WaitingMessage
from edge.alarms.sinks import open_sink
from edge.settings.alarms import AlarmSinkSettings, MqttSinkSettings
from shared.errors import VedetteError
from shared.texts import moment_text


def try_sinks(settings: Sequence[AlarmSinkSettings]) -> Iterator[tuple[str, str]]:
    """Id of each sink, and why the message did not come through; empty if it did."""
    for one in settings:
        alarm_id, now_s = str(uuid.uuid4()), time.time()
        body = json.dumps({"event": "test", "alarm_id": alarm_id, "raised_at": moment_text(now_s)})
        try:
            if isinstance(one, MqttSinkSettings):  # the agent may be connected under the sink's own name
                one = one.model_copy(update={"client_id": f"vedette-trial-{alarm_id[:8]}"})
            sink = open_sink(one)
            try:
                sink.send(WaitingMessage(0, alarm_id, "test", body, now_s))
            finally:
                sink.close()
        except VedetteError as error:
            yield one.id, str(error)
        else:
            yield one.id, ""
