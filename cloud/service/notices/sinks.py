"""Sinks for notices and verdicts. A sink has taken a message when `send` returns, or raises NotDeliveredError."""

import json
import smtplib
import ssl
import uuid
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cloud.notice_settings import NoticeMailSettings, NoticeMqttSettings, NoticeSinkSettings, NoticeWebhookSettings
from shared.errors import DataError, MissingExtraError
from shared.webhooks import NotDeliveredError, Webhook

T = TypeVar("T")
DELIVERY_ID = "Vedette-Delivery-Id"


class NoticeSink(Protocol):
    """Place that messages go to."""

    def send(self, message: Mapping[str, Any]) -> None:
        """Deliver a message, which has a `delivery_id`; raises NotDeliveredError. Blocks."""
        ...


def open_sink(settings: NoticeSinkSettings) -> NoticeSink:
    """Return the sink of these settings; raises DataError for a file that cannot be used, MissingExtraError."""
    match settings:
        case NoticeWebhookSettings():
            return NoticeWebhook(settings)
        case NoticeMqttSettings():
            return NoticeMqtt(settings)
        case NoticeMailSettings():
            return NoticeMail(settings)


class NoticeWebhook:
    """Sink that sends signed HTTP requests (`shared.webhooks.Webhook`)."""

    def __init__(self, settings: NoticeWebhookSettings) -> None:
        owner = f"Sink {settings.id!r}"
        self._webhook = Webhook(owner, settings.url, settings.secret_file, settings.ca, settings.timeout_s)

    def send(self, message: Mapping[str, Any]) -> None:
        """See `NoticeSink.send`."""
        self._webhook.post(json.dumps(message).encode(), {DELIVERY_ID: str(message["delivery_id"])})


class NoticeMqtt:
    """Sink that publishes with QoS 1, over a connection for each message."""

    def __init__(self, settings: NoticeMqttSettings) -> None:
        self._mqtt = _paho()
        self._settings, self._password = settings, _password(settings.id, settings.password_file)
        self._tls = _tls(settings.id, settings.ca) if settings.tls else None

    def send(self, message: Mapping[str, Any]) -> None:
        """See `NoticeSink.send`."""
        settings, mqtt = self._settings, self._mqtt
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"vedette-{uuid.uuid4().hex[:16]}")
        client.connect_timeout = settings.timeout_s
        if settings.username:
            client.username_pw_set(settings.username, self._password or None)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        try:
            client.connect(settings.host, settings.port, keepalive=30)
            client.loop_start()
            sent = client.publish(settings.topic, json.dumps(message), qos=1)
            sent.wait_for_publish(settings.timeout_s)
            is_published = sent.is_published()
        except (OSError, ValueError, RuntimeError) as error:
            raise NotDeliveredError(f"the broker {settings.host}:{settings.port}: {error}") from None
        finally:
            client.disconnect()
            client.loop_stop()
        if not is_published:
            raise NotDeliveredError(f"the broker {settings.host}:{settings.port} does not confirm")


class NoticeMail:
    """Sink that sends an e-mail for each notice; a repeated one has the same Message-ID."""

    def __init__(self, settings: NoticeMailSettings) -> None:
        self._settings, self._password = settings, _password(settings.id, settings.password_file)
        self._tls = _tls(settings.id, settings.ca) if settings.security != "none" else None

    def send(self, message: Mapping[str, Any]) -> None:
        """See `NoticeSink.send`."""
        settings = self._settings
        try:
            with self._connect() as server:  # ValueError: a host or password that cannot be sent
                if settings.security == "starttls":
                    server.starttls(context=self._tls)
                if settings.username:
                    server.login(settings.username, self._password)
                server.send_message(self._mail(message), settings.sender, settings.recipients)
        except (OSError, smtplib.SMTPException, ValueError) as error:
            raise NotDeliveredError(f"the mail server {settings.host}:{settings.port}: {error}") from None

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        if settings.security == "tls":
            return smtplib.SMTP_SSL(settings.host, settings.port, timeout=settings.timeout_s, context=self._tls)
        return smtplib.SMTP(settings.host, settings.port, timeout=settings.timeout_s)

    def _mail(self, message: Mapping[str, Any]) -> EmailMessage:
        mail = EmailMessage()
        state, text = message.get("state", "test"), str(message.get("text", "Test message of Vedette."))
        mail["Subject"] = " ".join(f"[vedette] {state}: {text}".split())[:200]
        mail["From"], mail["To"] = self._settings.sender, ", ".join(self._settings.recipients)
        mail["Message-ID"] = f"<{message['delivery_id']}@{self._settings.sender.rpartition('@')[2]}>"
        mail[DELIVERY_ID] = str(message["delivery_id"])
        facts = "".join(f"{name}: {value}\n" for name, value in message.items() if name != "text")
        mail.set_content(f"{text}\n\n{facts}")
        return mail


def _password(owner: str, path: Path | None) -> str:
    def first_line(path: Path) -> str:
        return path.read_text().split("\n")[0].rstrip("\r")

    return _file(owner, "password_file", path, first_line, "")


def _tls(owner: str, ca: Path | None) -> ssl.SSLContext:
    def trusting(path: Path) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=path)

    return _file(owner, "ca", ca, trusting, ssl.create_default_context())


def _paho() -> Any:
    """Return paho's client module, which is imported for an MQTT sink only; raises MissingExtraError."""
    try:
        import paho.mqtt.client as mqtt
    except ImportError:
        raise MissingExtraError("An MQTT sink needs paho-mqtt: pip install 'vedette[edge]'.") from None
    return mqtt


def _file(owner: str, name: str, path: Path | None, read: Callable[[Path], T], default: T) -> T:
    try:
        return read(path) if path is not None else default
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Sink {owner!r}: {name} {path} cannot be used ({error}).") from None
