"""Settings of the service: `cloud.toml` and `VEDETTE_` environment variables."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from cloud.account_settings import AccountSettings
from cloud.analysis_settings import AnalysisSettings
from cloud.explanation_settings import ExplanationSettings
from cloud.limit_settings import LimitSettings
from cloud.notice_settings import NoticeSettings
from cloud.training_settings import TrainingJobSettings
from shared.addresses import Address, is_host
from shared.settings import Settings
from shared.tracing import TracingSettings


def _parse_address(text: str) -> Address:
    """Return the address in `text`; the host becomes a name in a certificate, so it has no underscores."""
    address = Address.parse(text)
    if not is_host(address.host):
        raise ValueError("write host:port, where host is a name or an IP address")
    return address


def _check_address(text: str) -> str:
    _parse_address(text)
    return text


def _check_advertised(text: str) -> str:
    if text and _parse_address(text).port == 0:
        raise ValueError("devices need a fixed port; leave it empty to advertise the port that is listened on")
    return text


def _check_host(text: str) -> str:
    if not is_host(text):
        raise ValueError("write a host name or an IP address, without a port")
    return text


def _check_store_url(text: str) -> str:
    if not text:
        return text
    try:
        url = urlsplit(text)
        password = url.password
    except ValueError as error:
        raise ValueError(f"not a URL ({error}); write postgresql://USER@HOST/DATABASE") from None
    if url.scheme not in ("postgresql", "postgres") or not url.path.strip("/"):
        raise ValueError("write postgresql://USER@HOST/DATABASE, or leave it empty for SQLite in data_dir")
    if password is not None or "password=" in url.query:
        raise ValueError("leave the password out: give it in the variable PGPASSWORD, or in the file ~/.pgpass")
    return text


def _check_network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError("write a network such as 10.0.0.0/8, or the address of one proxy") from None
    return text


def _check_objects_url(text: str) -> str:
    if not text:
        return text
    url = urlsplit(text)
    is_folder = url.scheme == "file" and not url.netloc and url.path.strip("/")
    if not is_folder and not (url.scheme == "s3" and url.netloc):
        raise ValueError("write s3://BUCKET/PREFIX or file:///FOLDER")
    if "@" in url.netloc:
        raise ValueError("leave the credentials out: give them in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    return text


PAYLOADS_FOLDER = "payloads"
ListenAddress = Annotated[str, AfterValidator(_check_address)]
AdvertisedAddress = Annotated[str, AfterValidator(_check_advertised)]
HostName = Annotated[str, AfterValidator(_check_host)]
StoreUrl = Annotated[str, AfterValidator(_check_store_url)]
NetworkText = Annotated[str, AfterValidator(_check_network)]
ObjectsUrl = Annotated[str, AfterValidator(_check_objects_url)]


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """Location of a service's store: its data directory; URLs of database, bundles and payloads elsewhere."""

    data_dir: Path
    url: str = ""
    bundles_url: str = ""
    payloads_url: str = ""

    @property
    def segments_url(self) -> str:
        """URL of large payloads and maps; empty if they stay in the database, which several machines may reach."""
        if self.payloads_url or self.url:
            return self.payloads_url
        return f"file://{self.data_dir.absolute() / PAYLOADS_FOLDER}"

    def __str__(self) -> str:
        return self.url or str(self.data_dir)


class RolloutSettings(Settings):
    """Settings of rollouts in stages."""

    check_every_s: float = Field(
        default=5.0, gt=0, le=600, title="Check", description="seconds between two checks of the gates of a rollout"
    )
    few_devices: int = Field(
        default=10,
        ge=0,
        title="Few devices",
        description="vedette cloud rollout --to goes in stages if more devices than these run the name",
    )


class RetentionSettings(Settings):
    """Retention periods; 0 means unlimited. PostgreSQL may keep payloads and verdicts for a fifth longer."""

    payloads_days: float = Field(
        default=30.0, ge=0, title="Payloads", description="days until the payload of a judged sample is deleted"
    )
    verdicts_days: float = Field(
        default=365.0, ge=0, title="Verdicts", description="days until a verdict and its sample are deleted"
    )
    labelled_days: float = Field(
        default=730.0,
        ge=0,
        title="Labelled samples",
        description="days until a sample with a label is deleted, with verdict and payload; never before verdicts_days",
    )
    events_days: float = Field(
        default=14.0,
        ge=0,
        title="Events",
        description="days until an event is deleted, the longest time offline without loss, and a closed notice",
    )
    history_days: float = Field(
        default=14.0,
        ge=0.1,
        le=400,
        title="History of devices",
        description="days of a device's history in steps of 5 minutes; hourly steps stay six times as long",
    )


class ServiceTracingSettings(TracingSettings):
    """Traces of single samples that devices have begun."""

    samples_per_s: float = Field(
        default=20.0,
        gt=0,
        le=10_000,
        title="Traced samples",
        description="samples a second that each process traces; devices choose which, more are not traced",
    )


class CloudSettings(Settings):
    """All settings in `cloud.toml`."""

    data_dir: Path = Field(
        default=Path("vedette-cloud"),
        title="Data directory",
        description="folder of store, bundles and certificates; made if missing",
    )
    store_url: StoreUrl = Field(
        default="",
        title="Store",
        description="postgresql://USER@HOST/DATABASE of a PostgreSQL store; empty: SQLite in data_dir",
    )
    bundle_store: ObjectsUrl = Field(
        default="",
        title="Bundle store",
        description="s3://BUCKET/PREFIX or file:///FOLDER of the bundles of several machines; empty: data_dir alone",
    )
    payload_store: ObjectsUrl = Field(
        default="",
        title="Payload store",
        description="s3://BUCKET/PREFIX or file:///FOLDER of large payloads and maps; empty: the folder payloads in "
        "data_dir, or the PostgreSQL database",
    )
    listen: ListenAddress = Field(
        default="127.0.0.1:7443", title="Device port", description="host:port for devices, mutual TLS"
    )
    enrolment_listen: ListenAddress = Field(
        default="127.0.0.1:7444", title="Enrolment port", description="host:port for enrolment, server TLS"
    )
    console_listen: ListenAddress = Field(
        default="127.0.0.1:7480",
        title="Console port",
        description="host:port of the console, /health, /ready and /metrics, HTTP",
    )
    metrics_listen: ListenAddress = Field(
        default="127.0.0.1:7481",
        title="Metrics port",
        description="host:port of /health, /ready and /metrics of a process with the role ingest or analysis, HTTP",
    )
    console_names: tuple[HostName, ...] = Field(
        default=(),
        title="Console names",
        description="host names under which browsers reach the console through a proxy; loopback is always allowed",
    )
    trusted_proxies: tuple[NetworkText, ...] = Field(
        default=(),
        title="Trusted proxies",
        description="networks of proxies whose X-Forwarded-For, -Proto and -Host are believed; none by default",
    )
    console_certificate: Path | None = Field(
        default=None, title="Console certificate", description="PEM of the console's certificates; empty: plain HTTP"
    )
    console_key: Path | None = Field(
        default=None, title="Console key", description="PEM of the private key of console_certificate"
    )
    sign_in: bool = Field(
        default=True,
        title="Sign-in",
        description="false: anyone on this machine may view the console without an account; loopback only",
    )
    advertised_address: AdvertisedAddress = Field(
        default="",
        title="Advertised address",
        description="host:port of the device port as devices reach it; empty: same as listen",
    )
    advertised_enrolment_address: AdvertisedAddress = Field(
        default="",
        title="Advertised enrolment address",
        description="host:port of the enrolment port as devices reach it; empty: same as enrolment_listen",
    )
    server_names: tuple[HostName, ...] = Field(
        default=(),
        title="Server names",
        description="additional host names and IP addresses in the server's certificate",
    )
    bundle_key: Path | None = Field(
        default=None,
        title="Bundle key",
        description="PEM of the public key that signs bundles; empty: the public half of $VEDETTE_HOME/signing.pem",
    )
    token_valid_s: float = Field(
        default=86_400.0, gt=0, le=90 * 86_400, title="Token lifetime", description="seconds until a new token expires"
    )
    device_certificate_days: float = Field(
        default=397.0,
        ge=0.01,
        le=3650,
        title="Device certificate",
        description="days until a new device certificate ends; agents renew it in the last third of that time",
    )
    heartbeat_s: int = Field(
        default=10, ge=1, le=3600, title="Heartbeat", description="seconds between a device's heartbeats"
    )
    analysis: AnalysisSettings = AnalysisSettings()
    limits: LimitSettings = LimitSettings()
    retention: RetentionSettings = RetentionSettings()
    rollouts: RolloutSettings = RolloutSettings()
    notices: NoticeSettings = NoticeSettings()
    tracing: ServiceTracingSettings = ServiceTracingSettings()
    accounts: AccountSettings = AccountSettings()
    explanations: ExplanationSettings = ExplanationSettings()
    training: TrainingJobSettings = TrainingJobSettings()

    @model_validator(mode="before")
    @classmethod
    def _names_are_new(cls, values: Any) -> Any:
        if isinstance(values, dict) and "console_behind_proxy" in values:
            raise ValueError(
                "console_behind_proxy is gone: the console has its own sign-in. Remove it, and list the networks of "
                'the proxy: trusted_proxies = ["127.0.0.1"]'
            )
        return values

    @model_validator(mode="after")
    def _console_is_protected(self) -> Self:
        if (self.console_certificate is None) != (self.console_key is None):
            raise ValueError("console_certificate and console_key: set both or none")
        is_local = Address.parse(self.console_listen).is_loopback and not self.trusted_proxies
        if not self.sign_in and not is_local:
            raise ValueError(
                "sign_in = false is for this machine alone: listen on 127.0.0.1 in console_listen, without "
                "trusted_proxies, or set sign_in = true"
            )
        return self

    @property
    def store(self) -> StoreLocation:
        """Location of the store."""
        return StoreLocation(self.data_dir, self.store_url, self.bundle_store, self.payload_store)

    @property
    def training_folder(self) -> Path:
        """Folder of uploads, and of the work and results of training jobs."""
        return self.training.folder or self.data_dir / "training"
