"""Messages of an MQTT broker, whose topics and fields are the channels of a bundle.

The session outlives the connection: the broker keeps messages published with QoS 1 or 2 while the link is cut, and
sends them afterwards. Retained messages are skipped, since they are old.
"""

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import Any

from edge.settings.sources import MqttSettings
from edge.sources.alignment import Reading
from edge.sources.base import Pacer
from edge.sources.live import FULL_WAIT_S, LiveReadings
from edge.sources.records import RecordReader
from shared.broker import BrokerLink, load_paho
from shared.bundle import InputSpec
from shared.errors import SettingsError
from shared.logs import EventLog
from shared.modality import Modality
from shared.samples import Rejection

REFUSED = 128  # lowest reason code that is a failure

log = EventLog("mqtt")


class MqttSource(LiveReadings):
    """Readings from the messages of one broker."""

    def __init__(self, settings: MqttSettings, modality: Modality, spec: InputSpec, pacer: Pacer) -> None:
        """Check topics and paths. Raises SettingsError for a wrong one, DataError for an unreadable file."""
        super().__init__(settings, modality, spec, pacer)
        self._mqtt = load_paho()
        self._settings = settings
        self._readers = self._readers_by_topic()
        self._link = BrokerLink(settings, settings.id, session_s=settings.session_expiry_s)
        self.name, self._client = self._link.name, self._link.client
        client = self._client
        client.on_connect, client.on_disconnect = self._connected, self._disconnected
        client.on_connect_fail = self._not_connected
        client.on_subscribe, client.on_message = self._subscribed, self._received
        self._is_over = False
        self._health.is_in("connecting", self.name)

    def _readers_by_topic(self) -> list[tuple[str, RecordReader]]:
        """Return the topic filters, each with the reader of its channels."""
        settings, by_topic = self._settings, dict[str, list[int]]()
        for number, channel in enumerate(self._channels):
            own = settings.channels.get(channel)
            topic = (own.topic if own is not None else "") or settings.topic
            if not topic:
                raise SettingsError(
                    f"Source {settings.id!r}: channel {channel!r} has no topic: set topic, or channels.{channel}.topic."
                )
            by_topic.setdefault(topic, []).append(number)
        for topic in by_topic:
            with contextlib.suppress(ValueError):
                self._mqtt.topic_matches_sub(topic, "a")
                if _is_filter(topic):
                    continue
            raise SettingsError(
                f"Source {settings.id!r}: {topic!r} is no topic filter: + stands for one level, # for all the rest."
            )
        return [(topic, self._record_reader(numbers)) for topic, numbers in by_topic.items()]

    def _start(self) -> None:
        self._link.start()

    def _end(self) -> None:
        self._is_over = True
        self._link.stop()

    def _connected(self, client: Any, data: Any, flags: Any, code: Any, properties: Any = None) -> None:
        if code.is_failure:
            self._worry("refused", f"the broker says: {code}")
            return
        client.subscribe([(topic, self._settings.qos) for topic, _ in self._readers])

    def _subscribed(self, client: Any, data: Any, message: int, codes: Sequence[Any], properties: Any = None) -> None:
        for (topic, _), code in zip(self._readers, codes, strict=False):
            if code.value >= REFUSED:
                self._worry("refused", f"the broker refuses topic {topic!r}: {code}")
                return
        if self._health.is_in("running"):
            log.info("mqtt_running", source=self.source_id, url=self.name, reconnects=self.health.reconnects)

    def _not_connected(self, client: Any, data: Any) -> None:
        self._health.count(reconnects=1)
        error = sys.exception()  # paho calls this while it handles the one that kept it from connecting
        self._worry("disconnected", f"{self.name} cannot be reached{f' ({error})' if error is not None else ''}")

    def _disconnected(self, client: Any, data: Any, flags: Any, code: Any, properties: Any = None) -> None:
        if self._is_over or self.health.state == "refused":
            return
        self._health.count(reconnects=1)
        self._worry("disconnected", f"the connection was lost: {code}")

    def _worry(self, state: str, detail: str) -> None:
        if self._health.is_in(state, detail):
            log.warning("mqtt_lost", source=self.source_id, url=self.name, state=state, reason=detail)

    def _received(self, client: Any, data: Any, message: Any) -> None:
        if message.retain:
            self._health.leave_out("retained message", skipped=1)
            return
        arrived_s = time.time()
        items: list[Reading | Rejection] = []
        for topic, reader in self._readers:
            if self._mqtt.topic_matches_sub(topic, message.topic):
                items += reader.read(message.payload, arrived_s, message.topic[:200])
        lost = self._intake.put(items, FULL_WAIT_S)
        self._health.leave_out("the screener is too slow", lost, skipped=lost)


def _is_filter(topic: str) -> bool:
    """Return whether wildcards stand for whole levels, and # only for the last (MQTT 5, section 4.7.1)."""
    levels = topic.split("/")
    whole = all(level in ("+", "#") or not {"+", "#"} & set(level) for level in levels)
    return whole and "#" not in levels[:-1] and "\0" not in topic and len(topic.encode()) < 2**16
