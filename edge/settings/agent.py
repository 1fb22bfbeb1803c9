"""Settings of an agent: `edge.toml`, overridden by the environment, checked before anything starts."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from edge.settings.alarms import AlarmSinkSettings
from edge.settings.sources import SourceSettings, StdinSettings
from shared.addresses import Address
from shared.calibration import MIN_P_VALUE
from shared.settings import Settings
from shared.tracing import TracingSettings


class RouterSettings(Settings):
    """Which samples travel, and how much of the link they may use."""

    mode: Literal["cascade", "edge_only", "cloud_only"] = Field(
        default="cascade", title="Mode", description="cascade: the suspicious; edge_only: none; cloud_only: all"
    )
    forward_p_value: float = Field(
        default=0.05,
        ge=MIN_P_VALUE,  # which is also that of a sample without a score: it always travels
        le=1,
        title="Forward",
        description="samples with a p-value of at most this are forwarded",
    )
    audit_share: float = Field(
        default=0.01,
        ge=0,
        le=1,
        title="Audit",
        description="share of accepted samples forwarded anyway, at random; audits get at most half of the budget",
    )
    max_miss_rate: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        title="Miss rate",
        description="share of anomalies that may stay among the accepted samples: sets the forward threshold from "
        "audits, in mode cascade; 0: forward_p_value is in force",
    )
    false_alarms_per_day: float = Field(
        default=1.0, ge=0, title="False alarms", description="local alarms a source may raise in a day of normal data"
    )
    repeats: Literal["hold", "send"] = Field(
        default="send",
        title="Repeats",
        description="send: near copies of samples that the service has judged travel like others; "
        "hold: they stay and are counted, in mode cascade",
    )
    repeats_expire_s: float = Field(
        default=86_400.0,
        gt=0,
        title="Expiry",
        description="seconds that a judged sample is remembered; audits that confirm it renew it",
    )
    max_samples_per_s: float = Field(
        default=0.0, ge=0, title="Sample budget", description="samples a second over all sources; 0: no limit"
    )
    max_bytes_per_s: float = Field(
        default=0.0, ge=0, title="Byte budget", description="bytes a second over all sources; 0: no limit"
    )
    burst_s: float = Field(
        default=10.0, gt=0, title="Burst", description="seconds of unused budget that may be saved up"
    )
    max_queue_s: float = Field(
        default=300.0,
        ge=0,
        title="Queue",
        description="seconds a slow link may need for the queue; a longer queue lowers the byte budget; 0: no limit",
    )
    payloads: tuple[Literal["lossless", "jpeg", "h264", "crop", "features"], ...] = Field(
        default=("lossless", "jpeg", "h264", "crop", "features"),
        min_length=1,
        title="Payloads",
        description="of images and clips, in this order as budget and link fill up; h264 for clips, crop for images; "
        "features: map, scores and a preview",
    )
    jpeg_quality: int = Field(default=90, ge=1, le=100, title="Quality", description="of JPEG payloads and crops")
    seed: int | None = Field(
        default=None,
        ge=0,
        title="Seed",
        description="of the audit's random choice, for tests: each start draws the same; None: fresh ones",
    )

    @field_validator("payloads")
    @classmethod
    def _get_smaller(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        order = ("lossless", "jpeg", "h264", "crop", "features")
        if list(value) != sorted(set(value), key=order.index):
            raise ValueError(f"name each once, in the order {', '.join(order)}")
        return value


class DriftSettings(Settings):
    """Reaction of a device to slow changes of its normal samples."""

    mode: Literal["off", "warn", "adapt"] = Field(
        default="off",
        title="Mode",
        description="off: nothing; warn: name inputs or scores that drift; adapt: p-values follow normal samples, too",
    )
    frozen: bool = Field(
        default=False, title="Frozen", description="true: p-values stay as far from training as they are now"
    )
    memory_samples: int = Field(
        default=2000, ge=200, le=1_000_000, title="Memory", description="samples that p-values follow, at least"
    )
    memory_s: float = Field(
        default=21_600.0, ge=0, title="Memory time", description="seconds of samples that p-values follow, at least"
    )
    max_move: float = Field(
        default=10.0, gt=1, le=1000, title="Speed", description="factor of p-values within one memory at most"
    )
    max_unconfirmed: float = Field(
        default=5.0,
        ge=1,
        le=1000,
        title="Unconfirmed",
        description="factor between p-values and those of training at most, unless verdicts clear suspicious samples",
    )


class SpoolSettings(Settings):
    """The bounds of the durable queue."""

    max_bytes: int = Field(
        default=256 * 2**20, ge=2**16, title="Size", description="bytes kept; beyond, the least suspicious go"
    )
    max_age_s: float = Field(
        default=7 * 86400.0, gt=0, title="Age", description="seconds after which an undelivered sample is dropped"
    )
    max_pending_bytes: int = Field(
        default=8 * 2**20, ge=2**16, title="Pending", description="bytes that may wait in memory for the disk"
    )


class UplinkSettings(Settings):
    """How samples travel to the cloud."""

    address: str | None = Field(
        default=None, title="Address", description="host:port of the service; default the one given at enrolment"
    )
    deadline_s: float = Field(default=20.0, gt=0, le=600, title="Deadline", description="seconds a call may take")
    batch_samples: int = Field(default=256, ge=1, le=1024, title="Batch size", description="samples in one request")
    batch_bytes: int = Field(
        default=2 * 2**20, ge=1024, le=24 * 2**20, title="Batch bytes", description="bytes in one request"
    )
    max_batch_age_ms: float = Field(
        default=100.0, ge=0, title="Batch age", description="milliseconds a request waits for more samples"
    )
    in_flight: int = Field(default=4, ge=1, le=64, title="In flight", description="requests under way at once")
    backoff_initial_s: float = Field(default=0.2, gt=0, title="First wait", description="seconds after a failed call")
    backoff_max_s: float = Field(default=15.0, gt=0, title="Longest wait", description="seconds between two attempts")
    heartbeat_s: float = Field(
        default=5.0, gt=0, title="Heartbeat", description="seconds between two, unless the service asks for others"
    )

    @field_validator("address")
    @classmethod
    def _is_host_and_port(cls, value: str | None) -> str | None:
        if value is not None and not Address.parse(value).port:
            raise ValueError("write host:port with the port of the service, such as vedette.example:7443")
        return value


class MetricsSettings(Settings):
    """The local HTTP endpoint."""

    address: str = Field(
        default="127.0.0.1:0",
        title="Address",
        description="host:port of /metrics, /health and /status; port 0: any free one; empty: off",
    )

    @field_validator("address")
    @classmethod
    def _is_host_and_port(cls, value: str) -> str:
        if value:
            Address.parse(value)
        return value


class ScreeningLogSettings(Settings):
    """A CSV line for each screened sample, for evaluation."""

    path: Path | None = Field(default=None, title="Path", description="the file to append to; absent: off")


class NormalBufferSettings(Settings):
    """The accepted samples kept for federated rounds (tabular and series)."""

    capacity: int = Field(default=4096, ge=0, le=1_000_000, title="Capacity", description="samples kept; 0: off")
    key_file: Path | None = Field(
        default=None, title="Key", description="file with 64 hexadecimal digits: snapshots are encrypted with them"
    )
    snapshot_every_s: float = Field(default=10.0, gt=0, title="Interval", description="seconds between two snapshots")


class LiveViewSettings(Settings):
    """Live views: the newest sample of a source for a person who asks for it in the console."""

    allowed: bool = Field(
        default=True,
        title="Allowed",
        description="true: operators and administrators may see the newest screened sample of a source; each view is "
        "logged; never in mode edge_only",
    )
    max_per_minute: float = Field(
        default=60.0, gt=0, le=600, title="Rate", description="live views a minute over all sources"
    )


class DeviceTracingSettings(TracingSettings):
    """Traces of single samples from the device to the verdict."""

    share: float = Field(
        default=0.01, ge=0, le=1, title="Share", description="share of the sent samples that are traced, at random"
    )


class LogSettings(Settings):
    """Log of the agent on its standard error stream."""

    format: Literal["logfmt", "json"] = Field(default="logfmt", title="Format", description="of each line")
    level: Literal["debug", "info", "warning", "error"] = Field(default="info", title="Level", description="the least")


class AgentSettings(Settings):
    """Everything in `edge.toml`."""

    state_dir: Path = Field(title="State", description="folder of identity, spool, bundles, counters; one agent each")
    sources: tuple[SourceSettings, ...] = Field(
        default=(), title="Sources", description="cameras, files and brokers to screen"
    )
    alarms: tuple[AlarmSinkSettings, ...] = Field(default=(), title="Alarms", description="sinks for local alarms")
    router: RouterSettings = RouterSettings()
    drift: DriftSettings = DriftSettings()
    spool: SpoolSettings = SpoolSettings()
    uplink: UplinkSettings = UplinkSettings()
    metrics: MetricsSettings = MetricsSettings()
    screening_log: ScreeningLogSettings = ScreeningLogSettings()
    normal_buffer: NormalBufferSettings = NormalBufferSettings()
    live_view: LiveViewSettings = LiveViewSettings()
    tracing: DeviceTracingSettings = DeviceTracingSettings()
    log: LogSettings = LogSettings()
    bundle_key: Path | None = Field(
        default=None,
        title="Bundle key",
        description="PEM of the only public key to trust; default: the key set of the service, from enrolment on",
    )
    group_settings: bool = Field(
        default=True,
        title="Group settings",
        description="true: values that the service sets for the device's group replace those of [router]",
    )
    drain_timeout_s: float = Field(
        default=60.0, ge=0, title="Drain", description="seconds --until-done waits for the spool and its verdicts"
    )

    @property
    def permits_live_views(self) -> bool:
        """Whether a person may see the newest sample of a source; in mode edge_only no sample leaves the device."""
        return self.live_view.allowed and self.router.mode != "edge_only"

    @model_validator(mode="after")
    def _ids_differ(self) -> Self:
        ids = [source.id for source in self.sources]
        if len(set(ids)) != len(ids):
            raise ValueError("two sources have the same id: give each its own")
        sinks = [sink.id for sink in self.alarms]
        if len(set(sinks)) != len(sinks):
            raise ValueError("two sinks of alarms have the same id: give each its own")
        if unknown := {name for sink in self.alarms for name in sink.sources} - set(ids):
            raise ValueError(f"alarms: no source is called {', '.join(sorted(unknown))}: correct sources")
        if sum(isinstance(source, StdinSettings) for source in self.sources) > 1:
            raise ValueError("two sources read the standard input: only one can")
        return self
