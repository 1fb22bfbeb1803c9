"""Connection to an MQTT broker, kept by its own thread and restored when it is lost, and messages over it."""

import socket
import ssl
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from shared.broker_settings import BrokerSettings
from shared.errors import DataError, MissingExtraError
from shared.logs import EventLog
from shared.webhooks import NotDeliveredError

PORTS = {"mqtt": 1883, "mqtts": 8883}
FIRST_WAIT_S = 1
POLL_S = 0.05
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

log = EventLog("mqtt")


class BrokerLink:
    """A client of paho-mqtt as the settings want it: `client`, whose callbacks are the caller's to set."""

    def __init__(self, settings: BrokerSettings, owner: str, *, session_s: int = 0) -> None:
        """`owner`: id of the source or sink. `session_s`: how long the broker keeps messages for it while it is away.

        Raises DataError for a file that cannot be read or used.
        """
        mqtt = load_paho()
        self._settings, self._owner, self._session_s = settings, owner, session_s
        address = urlsplit(settings.url)
        self._host, self._port = address.hostname or "", address.port or PORTS[address.scheme]
        self.name = f"{address.scheme}://{self._host}:{self._port}"
        is_newer = settings.protocol == "5"
        self.client: Any = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=settings.client_id or f"vedette-{socket.gethostname()}-{owner}",
            protocol=mqtt.MQTTv5 if is_newer else mqtt.MQTTv311,
            clean_session=None if is_newer else session_s == 0,
        )
        user, password = unquote(address.username or ""), unquote(address.password or "")
        if settings.password_file is not None:
            password = _first_line(settings.password_file, owner)
        if user or password:
            self.client.username_pw_set(user, password or None)
        if address.scheme == "mqtts":
            self.client.tls_set_context(self._tls())
        elif password and self._host not in _LOOPBACK:
            log.warning("password_unencrypted", owner=owner, url=self.name, advice="use mqtts://")
        self.client.reconnect_delay_set(FIRST_WAIT_S, max(FIRST_WAIT_S, int(settings.reconnect_max_s)))

    def start(self) -> None:
        """Connect, now or as soon as the broker is there."""
        more: dict[str, Any] = {}
        if self._settings.protocol == "5":
            from paho.mqtt import properties as mqtt_properties
            from paho.mqtt.packettypes import PacketTypes

            untyped: Any = mqtt_properties  # paho declares no types for its properties
            properties = untyped.Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = self._session_s
            more = {"clean_start": self._session_s == 0, "properties": properties}
        self.client.connect_async(self._host, self._port, self._settings.keepalive_s, **more)
        self.client.loop_start()

    def stop(self) -> None:
        """Disconnect, and end the thread."""
        self.client.disconnect()
        self.client.loop_stop()

    def _tls(self) -> ssl.SSLContext:
        settings = self._settings
        try:
            context = ssl.create_default_context(cafile=settings.ca)
            if settings.certificate is not None and settings.key is not None:
                context.load_cert_chain(settings.certificate, settings.key)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(str(path) for path in (settings.ca, settings.certificate, settings.key) if path)
            raise DataError(f"{self._owner!r}: {files}: not usable for TLS ({error}).") from None
        return context


class BrokerPublisher:
    """Publisher of messages, each of which is delivered once the broker confirms it. It connects at the first one."""

    def __init__(self, settings: BrokerSettings, owner: str, timeout_s: float) -> None:
        """`timeout_s`: time for a message. Raises DataError for a file that cannot be read or used."""
        self._link, self._qos, self._timeout_s = BrokerLink(settings, owner), settings.qos, timeout_s
        self._is_started = False
        self._refusal = ""
        self._refused: dict[int, str] = {}  # by message: brokers of MQTT 5 also confirm what they refuse
        self._link.client.on_connect, self._link.client.on_publish = self._connected, self._published

    def publish(self, topic: str, body: bytes | str) -> None:
        """Send a message, and wait until the broker has it; raises NotDeliveredError. Blocks."""
        client, name = self._link.client, self._link.name
        if not self._is_started:
            self._is_started = True
            self._link.start()
        end_s = time.monotonic() + self._timeout_s
        while not client.is_connected():
            if time.monotonic() > end_s:
                raise NotDeliveredError(self._refusal or f"{name} cannot be reached")
            time.sleep(POLL_S)
        sent = client.publish(topic, body, qos=self._qos)
        try:
            sent.wait_for_publish(max(POLL_S, end_s - time.monotonic()))
        except (ValueError, RuntimeError) as error:
            raise NotDeliveredError(f"{name}: {error}") from None
        if not sent.is_published():
            raise NotDeliveredError(f"{name} does not confirm")
        if refusal := self._refused.pop(sent.mid, ""):
            raise NotDeliveredError(f"{name} refuses {topic!r}: {refusal}")

    def close(self) -> None:
        """Disconnect; the next message connects again."""
        if self._is_started:
            self._link.stop()
            self._is_started = False

    def _published(self, client: Any, data: Any, message: int, code: Any, properties: Any = None) -> None:
        if code.is_failure:
            self._refused[message] = str(code)

    def _connected(self, client: Any, data: Any, flags: Any, code: Any, properties: Any = None) -> None:
        self._refusal = f"the broker says: {code}" if code.is_failure else ""


def load_paho() -> Any:
    """paho-mqtt, imported at first use. Raises MissingExtraError where it is not installed."""
    try:
        import paho.mqtt.client as mqtt
    except ImportError:
        raise MissingExtraError("MQTT needs paho-mqtt: pip install 'vedette[edge]'.") from None
    return mqtt


def _first_line(path: Path, owner: str) -> str:
    try:
        return path.read_text().split("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{owner!r}: password_file {path} cannot be read ({error}).") from None
