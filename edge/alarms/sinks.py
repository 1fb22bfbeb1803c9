"""Sinks for alarms. A sink has taken a message when `send` returns, or raises `NotDeliveredError`."""

import os
from pathlib import Path
from typing import Protocol

from edge.alarms.outbox import WaitingMessage
from edge.settings.alarms import AlarmSinkSettings, FileSinkSettings, MqttSinkSettings, WebhookSettings
from shared.broker import BrokerPublisher
from shared.errors import DataError
from shared.webhooks import NotDeliveredError, Webhook, read_secret

ALARM_ID = "Vedette-Alarm-Id"


class Sink(Protocol):
    """One place alarms go to."""

    def send(self, message: WaitingMessage) -> None:
        """Deliver a message. Raises NotDeliveredError."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


def open_sink(settings: AlarmSinkSettings) -> Sink:
    """Open the sink of these settings. Raises DataError for a file that cannot be used."""
    match settings:
        case FileSinkSettings():
            return FileSink(settings)
        case WebhookSettings():
            return WebhookSink(settings)
        case MqttSinkSettings():
            return MqttSink(settings)


class FileSink:
    """Appends lines of JSON; a file that is long enough is put away under another name, and one such is kept."""

    def __init__(self, settings: FileSinkSettings) -> None:
        self._path, self._max_bytes = settings.path, settings.max_bytes
        try:
            settings.path.parent.mkdir(parents=True, exist_ok=True)
            settings.path.open("ab").close()
        except OSError as error:
            raise DataError(f"Alarm sink {settings.id!r}: {settings.path}: {error.strerror}. Correct path.") from None

    def send(self, message: WaitingMessage) -> None:
        """See `Sink.send`."""
        line = message.body.encode() + b"\n"
        try:
            with self._path.open("ab") as file:
                size = file.tell()
                # A line that a full disk cut short is ended first: each line is whole, or stands apart.
                if size and not _ends_a_line(self._path):
                    file.write(b"\n")
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            if size + len(line) >= self._max_bytes:
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        except OSError as error:
            raise NotDeliveredError(f"{self._path}: {error.strerror or error}") from None

    def close(self) -> None:
        """See `Sink.close`."""


class WebhookSink:
    """Sink that sends JSON by HTTP POST, signed (`shared.webhooks.Webhook`)."""

    def __init__(self, settings: WebhookSettings) -> None:
        owner = f"Alarm sink {settings.id!r}"
        self._webhook = Webhook(
            owner, settings.url, read_secret(owner, settings.secret_file), settings.ca, settings.timeout_s
        )

    def send(self, message: WaitingMessage) -> None:
        """See `Sink.send`."""
        self._webhook.post(message.body.encode(), {ALARM_ID: message.alarm_id})

    def signed_headers(self, alarm_id: str, body: bytes) -> dict[str, str]:
        """Return the headers of a request that is sent now, with the signature of its body."""
        return {ALARM_ID: alarm_id, **self._webhook.signed_headers(body)}

    def close(self) -> None:
        """See `Sink.close`."""


class MqttSink:
    """Sink that publishes to an MQTT broker (`shared.broker.BrokerPublisher`)."""

    def __init__(self, settings: MqttSinkSettings) -> None:
        self._topic = settings.topic
        self._publisher = BrokerPublisher(settings, f"alarms-{settings.id}", settings.timeout_s)

    def send(self, message: WaitingMessage) -> None:
        """See `Sink.send`."""
        self._publisher.publish(self._topic.replace("{source}", message.source_id), message.body)

    def close(self) -> None:
        """See `Sink.close`."""
        self._publisher.close()


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return bool(file.read(1) == b"\n")
