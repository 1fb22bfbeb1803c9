"""Sinks for notices and verdicts. A sink has taken a message when `send` returns, or raises NotDeliveredError."""

import json
import uuid
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from cloud.notice_settings import (
    NoticeMailSettings,
    NoticeMqttSettings,
    NoticeSinkSettings,
    NoticeWebhookSettings,
    allows_host,
)
from cloud.service.notices.mail import NoticeMail
from cloud.service.notices.messages import DELIVERY_ID
from cloud.service.notices.sink_files import read_password, tls_context
from cloud.store.webhooks import StoredWebhook
from shared.errors import MissingExtraError
from shared.webhooks import NotDeliveredError, Webhook, read_secret

TIMEOUT_S = 10.0  # of a message to a webhook that a program made


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
        self._webhook = Webhook(
            owner, settings.url, read_secret(owner, settings.secret_file), settings.ca, settings.timeout_s
        )

    def send(self, message: Mapping[str, Any]) -> None:
        """See `NoticeSink.send`."""
        self._webhook.post(json.dumps(message).encode(), {DELIVERY_ID: str(message["delivery_id"])})


class VerdictWebhook:
    """Sink of a webhook that a program made; only hosts that the settings still allow get a request."""

    def __init__(self, webhook: StoredWebhook, hosts: Collection[str]) -> None:
        self._url, self._hosts = webhook.url, hosts
        self._webhook = Webhook(f"Webhook {webhook.webhook_id}", webhook.url, webhook.secret.encode(), None, TIMEOUT_S)

    def send(self, message: Mapping[str, Any]) -> None:
        """See `NoticeSink.send`."""
        if not allows_host(self._url, self._hosts):
            raise NotDeliveredError("its host is not in notices.webhook_hosts")
        self._webhook.post(json.dumps(message).encode(), {DELIVERY_ID: str(message["delivery_id"])})


class NoticeMqtt:
    """Sink that publishes with QoS 1, over a connection for each message."""

    def __init__(self, settings: NoticeMqttSettings) -> None:
        self._mqtt = _paho()
        self._settings, self._password = settings, read_password(settings.id, settings.password_file)
        self._tls = tls_context(settings.id, settings.ca) if settings.tls else None

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


def _paho() -> Any:
    """Return paho's client module, which is imported for an MQTT sink only; raises MissingExtraError."""
    try:
        import paho.mqtt.client as mqtt
    except ImportError:
        raise MissingExtraError("An MQTT sink needs paho-mqtt: pip install 'vedette[edge]'.") from None
    return mqtt
