"""Settings of notices, and of the sinks that get notices and verdicts: section `[notices]` of `cloud.toml`."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from cloud.notice_kinds import NoticeKind
from shared.broker_settings import BrokerSettings
from shared.settings import Settings


def allows_host(url: str, hosts: Collection[str]) -> bool:
    """Return whether a URL names one of these hosts, or a name below one that begins with a full stop."""
    try:
        host = (urlsplit(url).hostname or "").lower().rstrip(".")
    except ValueError:
        return False
    return any(host == name or (name.startswith(".") and host.endswith(name)) for name in map(str.lower, hosts))


class NoticeSinkBase(Settings):
    """Settings of every sink: name and the messages that it gets."""

    id: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", title="Name", description="names the sink in logs and lists"
    )
    events: tuple[Literal["notices", "verdicts"], ...] = Field(
        default=("notices",), min_length=1, title="Events", description="notices, verdicts or both"
    )
    kinds: tuple[NoticeKind, ...] = Field(default=(), title="Kinds", description="kinds of notices; none: all")
    decisions: tuple[Literal["normal", "anomalous", "undecided"], ...] = Field(
        default=("anomalous",), title="Decisions", description="decisions of verdicts that are sent"
    )
    sites: tuple[str, ...] = Field(default=(), title="Sites", description="sites of verdicts that are sent; none: all")
    groups: tuple[str, ...] = Field(
        default=(), title="Groups", description="groups of verdicts that are sent; none: all"
    )
    timeout_s: float = Field(default=10.0, gt=0, le=120, title="Timeout", description="seconds a message may take")

    @property
    def sink(self) -> str:
        """Name in outbox and feeds."""
        return self.id

    @property
    def wants_verdicts(self) -> bool:
        """Whether it gets verdicts."""
        return "verdicts" in self.events


class NoticeWebhookSettings(NoticeSinkBase):
    """Sink that gets signed HTTP requests."""

    kind: Literal["webhook"] = Field(title="Kind", description="an HTTP POST, signed")
    url: str = Field(pattern=r"^https?://[^\s/@]+(/\S*)?$", title="Address", description="http:// or https://")
    secret_file: Path = Field(title="Secret", description="file with the secret of the signature, 16 bytes or more")
    ca: Path | None = Field(default=None, title="CA", description="PEM that signs the server; default the system's")


class NoticeMqttSettings(NoticeSinkBase, BrokerSettings):
    """Sink that gets messages over an MQTT broker."""

    kind: Literal["mqtt"] = Field(title="Kind", description="a message to an MQTT broker")
    topic: str = Field(pattern=r"^[^+#\x00]{1,1000}$", title="Topic", description="topic of the messages")


class NoticeMailSettings(NoticeSinkBase):
    """Sink that gets an e-mail for each notice."""

    kind: Literal["email"] = Field(title="Kind", description="an e-mail")
    host: str = Field(min_length=1, title="Host", description="name or address of the mail server")
    port: int = Field(default=587, ge=1, le=65535, title="Port", description="port of the mail server")
    security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", title="Security", description="starttls, tls from the first byte, or none"
    )
    ca: Path | None = Field(default=None, title="CA", description="PEM that signs the server; default the system's")
    username: str = Field(default="", title="User", description="user name; empty: no login")
    password_file: Path | None = Field(default=None, title="Password", description="file with the password")
    sender: str = Field(pattern=r"^[^\s<>@]+@[^\s<>@]+$", title="Sender", description="address of the sender")
    recipients: tuple[Annotated[str, Field(pattern=r"^[^\s<>@]+@[^\s<>@]+$")], ...] = Field(
        min_length=1, title="Recipients", description="addresses of the recipients"
    )

    @model_validator(mode="after")
    def _has_no_verdicts(self) -> Self:
        if "verdicts" in self.events:
            raise ValueError("events: an e-mail sink takes notices only; use a webhook or MQTT for verdicts")
        if self.username and self.security == "none":
            raise ValueError("security: a password needs starttls or tls")
        return self


NoticeSinkSettings: TypeAlias = Annotated[
    NoticeWebhookSettings | NoticeMqttSettings | NoticeMailSettings, Field(discriminator="kind")
]


class NoticeSettings(Settings):
    """Settings of notices."""

    check_every_s: float = Field(
        default=30.0, gt=0, le=3600, title="Check", description="seconds between two checks of devices, disks, rollouts"
    )
    silent_after_s: float = Field(
        default=900.0, gt=0, title="Silent", description="seconds without a heartbeat until a device is a notice"
    )
    certificate_days: float = Field(
        default=14.0, ge=0, title="Certificate", description="days before the end of a certificate it is a notice"
    )
    device_free_bytes: int = Field(
        default=64 * 2**20,
        ge=0,
        title="Device disk",
        description="free bytes of a device's disk below which it is full",
    )
    service_free_bytes: int = Field(
        default=2**30, ge=0, title="Service disk", description="free bytes of data_dir's disk below which it is full"
    )
    close_after_s: float = Field(
        default=300.0, ge=0, title="Close", description="seconds without the problem until its notice is closed"
    )
    max_age_s: float = Field(
        default=7 * 86_400.0, gt=0, title="Age", description="seconds after which an undelivered message is dropped"
    )
    webhook_hosts: tuple[Annotated[str, Field(pattern=r"^[^\s/@]{1,253}$")], ...] = Field(
        default=(),
        title="Webhook hosts",
        description="hosts of the webhooks that programs may make through the HTTP API, .example for all names below "
        "it; none: no such webhooks",
    )
    sinks: tuple[NoticeSinkSettings, ...] = Field(default=(), title="Sinks", description="where messages go")

    @model_validator(mode="after")
    def _ids_differ(self) -> Self:
        ids = [sink.id for sink in self.sinks]
        if len(set(ids)) != len(ids):
            raise ValueError("two sinks have the same id: give each its own")
        return self
