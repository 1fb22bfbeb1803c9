"""What an operator can set for the service: `cloud.toml` and `VEDETTE_` environment variables."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from shared.addresses import Address, is_host
from shared.settings import Settings


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
        raise ValueError("devices need a port to go to; leave it empty for the port that is listened on")
    return text


def _check_host(text: str) -> str:
    if not is_host(text):
        raise ValueError("write a host name or an IP address, without a port")
    return text


ListenAddress = Annotated[str, AfterValidator(_check_address)]
AdvertisedAddress = Annotated[str, AfterValidator(_check_advertised)]
HostName = Annotated[str, AfterValidator(_check_host)]


class AnalysisSettings(Settings):
    """How forwarded samples are judged."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", title="Device", description="auto takes CUDA if there is one"
    )
    batch_size: int = Field(
        default=64, ge=1, le=4096, title="Batch size", description="samples judged at once, at most"
    )
    false_alarm_rate: float = Field(
        default=0.01,
        gt=0,
        lt=1,
        title="False-alarm rate",
        description="share of all normal samples that may be called anomalous: a fused p-value up to this is",
    )
    cached_bundles: int = Field(
        default=8, ge=1, le=256, title="Cached bundles", description="bundles kept ready in memory"
    )


class LimitSettings(Settings):
    """How much the service takes on before it asks devices to wait: their spools keep what is not taken."""

    backlog_samples: int = Field(
        default=50_000, ge=1, title="Backlog", description="samples that may wait for their verdict, over all devices"
    )
    backlog_samples_per_device: int = Field(
        default=10_000,
        ge=1,
        title="Backlog of a device",
        description="samples of one device that may wait for their verdict",
    )
    concurrent_submits: int = Field(
        default=32,
        ge=1,
        le=1024,
        title="Concurrent submits",
        description="requests in work at once, over all devices",
    )
    watches_per_device: int = Field(
        default=4, ge=1, le=64, title="Watches of a device", description="event streams at once"
    )


class RetentionSettings(Settings):
    """How long things are kept. 0 keeps them for ever."""

    payloads_days: float = Field(
        default=30.0, ge=0, title="Payloads", description="days a judged sample's payload is kept"
    )
    verdicts_days: float = Field(
        default=365.0, ge=0, title="Verdicts", description="days a verdict and its sample are kept"
    )
    events_days: float = Field(
        default=14.0, ge=0, title="Events", description="days a device may stay away and miss no event"
    )


class CloudSettings(Settings):
    """The whole of `cloud.toml`."""

    data_dir: Path = Field(
        default=Path("vedette-cloud"),
        title="Data directory",
        description="store, bundles, certificates; made when missing",
    )
    listen: ListenAddress = Field(
        default="127.0.0.1:7443", title="Device port", description="host:port for devices, mutual TLS"
    )
    enrolment_listen: ListenAddress = Field(
        default="127.0.0.1:7444", title="Enrolment port", description="host:port where tokens are spent, server TLS"
    )
    console_listen: ListenAddress = Field(
        default="127.0.0.1:7480",
        title="Console port",
        description="host:port of the console, /health and /metrics, HTTP",
    )
    advertised_address: AdvertisedAddress = Field(
        default="",
        title="Advertised address",
        description="host:port where devices find the device port; empty: as listened",
    )
    advertised_enrolment_address: AdvertisedAddress = Field(
        default="",
        title="Advertised enrolment address",
        description="host:port where devices enrol; empty: as listened",
    )
    server_names: tuple[HostName, ...] = Field(
        default=(),
        title="Server names",
        description="more host names and IP addresses the server's certificate is good for",
    )
    bundle_key: Path | None = Field(
        default=None,
        title="Bundle key",
        description="PEM of the public key that signs bundles; empty: the public half of $VEDETTE_HOME/signing.pem",
    )
    token_valid_s: float = Field(
        default=86_400.0, gt=0, le=90 * 86_400, title="Token lifetime", description="seconds a new token can be spent"
    )
    heartbeat_s: int = Field(
        default=10, ge=1, le=3600, title="Heartbeat", description="seconds between a device's heartbeats"
    )
    analysis: AnalysisSettings = AnalysisSettings()
    limits: LimitSettings = LimitSettings()
    retention: RetentionSettings = RetentionSettings()
