"""Messages of an MQTT broker, whose topics and fields are the channels of a bundle.

The session outlives the connection: what is published with QoS 1 or 2 while the link is cut, the broker keeps and sends
afterwards. Retained messages are passed over, for they are of some earlier time.
"""

import contextlib
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from edge.source_settings import MqttSettings
from edge.sources.alignment import Reading
from edge.sources.base import Pacer
from edge.sources.live import FULL_WAIT_S, LiveReadings
from edge.sources.records import RecordReader
from shared.bundle import InputSpec
from shared.errors import DataError, MissingExtraError, SettingsError
from shared.logs import EventLog
from shared.samples import Modality, Rejection

PORTS = {"mqtt": 1883, "mqtts": 8883}
FIRST_WAIT_S = 1
REFUSED = 128  # the least reason code that is a failure

log = EventLog("mqtt")


class MqttSource(LiveReadings):
    """Readings from the messages of one broker."""

    def __init__(self, settings: MqttSettings, modality: Modality, spec: InputSpec, pacer: Pacer) -> None:
        """Raises SettingsError for a wrong topic or expression, DataError for a file that cannot be read."""
        super().__init__(settings, modality, spec, pacer)
        self._mqtt = _paho()
        self._settings = settings
        self._readers = self._readers_by_topic()
        address = urlsplit(settings.url)
        self._host, self._port = address.hostname or "", address.port or PORTS[address.scheme]
        self.name = f"{address.scheme}://{self._host}:{self._port}"
        self._client = self._make_client(unquote(address.username or ""), unquote(address.password or ""))
        self._is_over = False
        self._health.is_in("connecting", self.name)

    def _readers_by_topic(self) -> list[tuple[str, RecordReader]]:
        """The topic filters, each with what reads the channels that come by it."""
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
        return [(topic, RecordReader(settings, self._channels, numbers)) for topic, numbers in by_topic.items()]

    def _make_client(self, user: str, password: str) -> Any:
        mqtt, settings = self._mqtt, self._settings
        is_newer = settings.protocol == "5"
        client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=settings.client_id or f"vedette-{socket.gethostname()}-{settings.id}",
            protocol=mqtt.MQTTv5 if is_newer else mqtt.MQTTv311,
            clean_session=None if is_newer else False,
            reconnect_on_failure=True,
        )
        if settings.password_file is not None:
            password = _first_line(settings.password_file, settings.id)
        if user or password:
            client.username_pw_set(user, password or None)
        if self.name.startswith("mqtts"):
            client.tls_set_context(self._tls())
        elif password and self._host not in ("localhost", "127.0.0.1", "::1"):
            log.warning("password_unencrypted", source=settings.id, url=self.name, advice="use mqtts://")
        client.reconnect_delay_set(FIRST_WAIT_S, max(FIRST_WAIT_S, int(settings.reconnect_max_s)))
        client.on_connect, client.on_disconnect = self._connected, self._disconnected
        client.on_connect_fail = self._not_connected
        client.on_subscribe, client.on_message = self._subscribed, self._received
        return client

    def _tls(self) -> ssl.SSLContext:
        settings = self._settings
        try:
            context = ssl.create_default_context(cafile=settings.ca)
            if settings.certificate is not None and settings.key is not None:
                context.load_cert_chain(settings.certificate, settings.key)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(str(path) for path in (settings.ca, settings.certificate, settings.key) if path)
            raise DataError(f"Source {settings.id!r}: {files}: not usable for TLS ({error}).") from None
        return context

    def _start(self) -> None:
        settings = self._settings
        more: dict[str, Any] = {}
        if settings.protocol == "5":
            from paho.mqtt.packettypes import PacketTypes
            from paho.mqtt.properties import Properties

            properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = settings.session_expiry_s
            more = {"clean_start": False, "properties": properties}
        self._client.connect_async(self._host, self._port, settings.keepalive_s, **more)
        self._client.loop_start()

    def _end(self) -> None:
        self._is_over = True
        self._client.disconnect()
        self._client.loop_stop()

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
            self._health.count(skipped=1)
            return
        arrived_s = time.time()
        items: list[Reading | Rejection] = []
        for topic, reader in self._readers:
            if self._mqtt.topic_matches_sub(topic, message.topic):
                items += reader.read(message.payload, arrived_s, message.topic[:200])
        self._health.count(skipped=self._intake.put(items, FULL_WAIT_S))


def _is_filter(topic: str) -> bool:
    """Whether wildcards stand for whole levels, and # only for the last (MQTT 5, section 4.7.1)."""
    levels = topic.split("/")
    whole = all(level in ("+", "#") or not {"+", "#"} & set(level) for level in levels)
    return whole and "#" not in levels[:-1] and "\0" not in topic and len(topic.encode()) < 2**16


def _first_line(path: Path, source_id: str) -> str:
    try:
        return path.read_text().split("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Source {source_id!r}: password_file {path} cannot be read ({error}).") from None


def _paho() -> Any:
    """paho-mqtt, imported at first use."""
    try:
        import paho.mqtt.client as mqtt
    except ImportError:
        raise MissingExtraError("MQTT needs paho-mqtt: pip install 'vedette[edge]'.") from None
    return mqtt
