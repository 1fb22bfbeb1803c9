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
from cloud.store.webhooks import StoredWebhook
from shared.broker import BrokerPublisher
from shared.webhooks import NotDeliveredError, Webhook, read_secret

TIMEOUT_S = 10.0  # of a message to a webhook that a program made


class NoticeSink(Protocol):
    """Place that messages go to."""

    def send(self, message: Mapping[str, Any]) -> None:
        """Deliver a message, which has a `delivery_id`; raises NotDeliveredError. Blocks."""
        ...

    def close(self) -> None:
        """End the connections; the next message opens them again. Blocks."""
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

    def close(self) -> None:
        """See `NoticeSink.close`."""


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

    def close(self) -> None:
        """See `NoticeSink.close`."""


class NoticeMqtt:
    """Sink that publishes to an MQTT broker (`shared.broker.BrokerPublisher`)."""

    def __init__(self, settings: NoticeMqttSettings) -> None:
        # Processes of one service, and its test messages, would end one another's connection under one name.
        own = settings.client_id or f"vedette-{uuid.uuid4().hex[:16]}"
        unique = settings.model_copy(update={"client_id": own})
        self._topic, self._publisher = settings.topic, BrokerPublisher(unique, settings.id, settings.timeout_s)

    def send(self, message: Mapping[str, Any]) -> None:
        """See `NoticeSink.send`."""
        self._publisher.publish(self._topic, json.dumps(message))

    def close(self) -> None:
        """See `NoticeSink.close`."""
        self._publisher.close()
