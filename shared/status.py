"""Status and heartbeat of an agent: the models that the agent writes and every reader imports.

The agent writes its `AgentStatus` to `STATUS_FILE` in its state directory and serves the same at /status. It sends a
`Heartbeat` to the service, which stores the newest one of each device and shows it in the console.
"""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.errors import DataError, SettingsError
from shared.group_settings import GroupSettings
from vedette.v1 import fleet_pb2

STATUS_FILE = "status.json"
WAITING = "waiting for a bundle"  # state of a source
DRIFT_WARNING = "differ from the training data"  # part of a device's warning about a stream
MAX_NEAR_COPIES = 64  # counts of near copies in one heartbeat
BUNDLE_WARNING = "bundles: "  # start of a device's warning that a bundle was rolled back or could not be used


class StatusModel(BaseModel):
    """Base of the models: immutable; unknown keys, which a newer version may write, are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class HeartbeatCounters(StatusModel):
    """Counts since the agent's state was made, as a heartbeat carries them; they never decrease.

    `samples_forwarded` includes alarms and excludes audits. `bytes_screened` is the size of all screened samples on
    the wire, had each been sent; `bytes_uploaded` the size of the acknowledged messages.
    """

    samples_screened: int = 0
    samples_forwarded: int = 0
    samples_audited: int = 0
    samples_alarmed: int = 0
    samples_rejected: int = 0
    samples_dropped: int = 0
    bytes_screened: int = 0
    bytes_uploaded: int = 0

    @property
    def samples_sent(self) -> int:
        """Samples that the router chose to send: forwarded and audited."""
        return self.samples_forwarded + self.samples_audited


class AgentCounters(HeartbeatCounters):
    """All counts that an agent keeps.

    `samples_unscored` got no score from the graph and were forwarded as most suspicious. `samples_held` were suspicious
    but stayed on the device because of the budget or the mode; `samples_repeated` stayed as near copies of anomalous
    ones, while those of normal ones are among `samples_accepted`. `samples_reduced` were sent as JPEG, as a crop or as
    a preview. `samples_dropped` left the spool undelivered; `samples_refused` will never be accepted by the service.
    `alarms_sent` and `alarms_dropped` count messages, which may each stand for many alarms. `live_views` are samples
    that people asked for and the service took, `bytes_live_views` the size of all that were sent for this.
    """

    samples_accepted: int = 0
    samples_unscored: int = 0
    samples_held: int = 0
    samples_repeated: int = 0
    samples_reduced: int = 0
    samples_spooled: int = 0
    samples_acknowledged: int = 0
    samples_refused: int = 0
    verdicts: int = 0
    verdicts_anomalous: int = 0
    alarms_sent: int = 0
    alarms_dropped: int = 0
    bundle_swaps: int = 0
    bundle_rollbacks: int = 0
    bundles_refused: int = 0
    spools_set_aside: int = 0
    live_views: int = 0
    live_views_refused: int = 0
    bytes_live_views: int = 0


class MissReport(StatusModel):
    """Verdicts on the audits of one source, since it runs its bundle.

    `anomalous` of the `audits` were anomalous to the service, and `unknown` have no decision: undecided, lost, or
    without a verdict for a day. `audit_share` and `forward_p_value` are in force. `limit_words` says whether
    `max_miss_rate` was held, empty without one.
    """

    audits: int = 0
    anomalous: int = 0
    unknown: int = 0
    audit_share: float = 0.0
    forward_p_value: float = 0.0
    limit_words: str = ""

    @classmethod
    def from_message(cls, message: fleet_pb2.MissReport) -> "MissReport":
        """Return the report in a message of the wire; counts and shares that cannot be are moved into their range."""
        audits = message.audits
        anomalous = min(message.anomalous, audits)
        return MissReport(
            audits=audits,
            anomalous=anomalous,
            unknown=min(message.unknown, audits - anomalous),
            audit_share=_probability(message.audit_share),
            forward_p_value=_probability(message.forward_p_value),
            limit_words=message.limit_words,
        )


class MissStatus(MissReport):
    """The same with the bound, None before the first audit.

    `pending` audits wait for their verdict and are in no other figure. `limit` is `max_miss_rate`, 0 without one.
    """

    pending: int = 0
    at_most_share: float | None = None
    limit: float = 0.0


class NearCopies(StatusModel):
    """Near copies of a sent sample that stayed on the device so far; `sample_id` has 16 bytes."""

    sample_id: bytes
    copies: int
    last_at_s: float

    @classmethod
    def from_message(cls, message: fleet_pb2.NearCopies) -> Self:
        """Return the count in a message of the wire, whose time may be any."""
        last_at_s = message.last_at.seconds + message.last_at.nanos / 1e9  # unlike ToMicroseconds, without an error
        return cls(sample_id=message.sample_id, copies=message.copies, last_at_s=last_at_s)

    def to_message(self) -> fleet_pb2.NearCopies:
        """Return the message of the wire."""
        message = fleet_pb2.NearCopies(sample_id=self.sample_id, copies=self.copies)
        message.last_at.FromMicroseconds(int(self.last_at_s * 1_000_000))
        return message


class RepeatStatus(StatusModel):
    """Memory of judged samples of one source.

    `is_on`: near copies may stay on the device. `is_ready`: enough accepted samples are known to compare with.
    `cleared` and `condemned` are numbers of samples judged normal and anomalous, `waiting` of sent ones without a
    verdict, `held` of copies since the agent's start.
    """

    is_on: bool = False
    is_ready: bool = False
    cleared: int = 0
    condemned: int = 0
    waiting: int = 0
    held: int = 0


class RunningBundle(StatusModel):
    """Bundle and artefact that one source of a device runs; `bundle_id` is empty before the first bundle.

    `state` is that of the source in a few words, "running" if all is well; empty from an older agent. `missed` is None
    from an older agent, and before the first bundle.
    """

    source_id: str = ""
    bundle_name: str = ""
    bundle_id: str = ""
    artefact: str = ""
    state: str = ""
    missed: MissReport | None = None

    @classmethod
    def from_message(cls, message: fleet_pb2.RunningBundle) -> Self:
        """Return the bundle in a message of the wire."""
        texts = {name: getattr(message, name) for name in cls.model_fields if name != "missed"}
        missed = MissReport.from_message(message.missed) if message.HasField("missed") else None
        return cls(**texts, missed=missed)

    def to_message(self) -> fleet_pb2.RunningBundle:
        """Return the message of the wire."""
        texts = self.model_dump(exclude={"missed"})
        if self.missed is None:
            return fleet_pb2.RunningBundle(**texts)
        missed = fleet_pb2.MissReport(**{name: getattr(self.missed, name) for name in MissReport.model_fields})
        return fleet_pb2.RunningBundle(**texts, missed=missed)


class Heartbeat(StatusModel):
    """Report that a device sends to the service at regular intervals.

    `warnings` are short texts for an operator, such as "spool full: 12 samples dropped". `sent_at_ms` is the device's
    clock, 0 from an older agent. `key_set_sha256` is the hash of the key set in force, hexadecimal; it is empty from an
    older agent, and from one that trusts a fixed key. `settings` are in force on the device, None from an older agent;
    `settings_refusal` says why the settings of its group are not. `disk_free_bytes` is the free space for the device's
    state, None if unknown. `near_copies` are counts that changed since the last heartbeat.
    """

    agent_version: str = ""
    counters: HeartbeatCounters = HeartbeatCounters()
    running: tuple[RunningBundle, ...] = ()
    spool_samples: int = 0
    spool_bytes: int = 0
    warnings: tuple[str, ...] = ()
    sent_at_ms: int = 0
    key_set_sha256: str = ""
    settings: GroupSettings | None = None
    settings_refusal: str = ""
    disk_free_bytes: int | None = None
    near_copies: tuple[NearCopies, ...] = ()

    @property
    def is_drifting(self) -> bool:
        """Whether a stream differs from the training data of its bundle."""
        return any(DRIFT_WARNING in text for text in self.warnings)

    @classmethod
    def from_message(cls, message: fleet_pb2.HeartbeatRequest) -> Self:
        """Return the heartbeat in a message of the wire."""
        return cls(
            agent_version=message.agent_version,
            counters=HeartbeatCounters(
                **{name: getattr(message.counters, name) for name in HeartbeatCounters.model_fields}
            ),
            running=tuple(RunningBundle.from_message(item) for item in message.running),
            spool_samples=message.spool_samples,
            spool_bytes=message.spool_bytes,
            warnings=tuple(message.warnings),
            sent_at_ms=message.sent_at_ms,
            key_set_sha256=message.key_set_sha256.hex() if len(message.key_set_sha256) == 32 else "",
            settings=_reported_settings(message),
            settings_refusal=message.settings_refusal,
            disk_free_bytes=message.disk_free_bytes if message.HasField("disk_free_bytes") else None,
            near_copies=tuple(NearCopies.from_message(item) for item in message.near_copies),
        )

    def to_message(self) -> fleet_pb2.HeartbeatRequest:
        """Return the message of the wire."""
        return fleet_pb2.HeartbeatRequest(
            agent_version=self.agent_version,
            counters=fleet_pb2.Counters(
                **{name: getattr(self.counters, name) for name in HeartbeatCounters.model_fields}
            ),
            running=[item.to_message() for item in self.running],
            spool_samples=self.spool_samples,
            spool_bytes=self.spool_bytes,
            warnings=self.warnings,
            sent_at_ms=self.sent_at_ms,
            key_set_sha256=bytes.fromhex(self.key_set_sha256),
            settings=self.settings.to_message() if self.settings is not None else None,
            settings_refusal=self.settings_refusal,
            disk_free_bytes=self.disk_free_bytes,
            near_copies=[item.to_message() for item in self.near_copies],
        )


class SpoolStatus(StatusModel):
    """Samples and bytes of the spool on disk; `pending` samples wait in memory; `error` is that of the disk, or empty.

    `dropped` samples left undelivered since the state was made.
    """

    samples: int = 0
    bytes: int = 0
    pending: int = 0
    dropped: int = 0
    error: str = ""


class LinkStatus(StatusModel):
    """State of the connection to the service since `since_s`, in seconds since the epoch; `error`: why there is none.

    The service asked to wait until `pause_until_s`, for `pause_reason`. Throughput, round trip: 0 while unknown.
    """

    connected: bool = False
    address: str = ""
    since_s: float = 0.0
    error: str = ""
    pause_reason: str = ""
    pause_until_s: float = 0.0
    throughput_bytes_per_s: float = 0
    round_trip_ms: float = 0.0


class BudgetStatus(StatusModel):
    """Upload budget: `bytes_per_s` may enter the spool (0: no limit); `pressure` is its fill, 1 when full."""

    bytes_per_s: float = 0
    pressure: float = 0.0


class VerdictStatus(StatusModel):
    """Number of acknowledged samples whose verdict has not arrived yet."""

    awaited: int = 0


class AdaptationStatus(StatusModel):
    """State of a source's adapted p-values.

    `mode` is that of the setting `drift`, empty from an older agent. `factor` multiplies the p-values of training at
    the forward level, 1 without a move; `since_s` is the time since which it differs notably, 0 if it does not.
    `cleared` counts suspicious samples that verdicts called normal.
    """

    mode: str = ""
    frozen: bool = False
    factor: float = 1.0
    since_s: float = 0.0
    cleared: int = 0


class SourceStatus(StatusModel):
    """State of one source.

    `state` is that of its pipeline, `health` that of the source itself; `error` explains either. `reconnects` and
    `skipped` count since the start of the agent, `left_out` by reason. `finding` says how the stream differs from the
    training data, `clock` by how much the source's time stamps are off; both are empty if all is well. `missed` and
    `repeats` are None before the first bundle.
    """

    bundle_name: str = ""
    bundle_id: str = ""
    artefact: str = ""
    state: str = ""
    health: str = ""
    reconnects: int = 0
    skipped: int = 0
    left_out: dict[str, int] = {}
    finding: str = ""
    clock: str = ""
    error: str = ""
    missed: MissStatus | None = None
    repeats: RepeatStatus | None = None
    adaptation: AdaptationStatus = AdaptationStatus()

    @property
    def is_running(self) -> bool:
        """Whether the source delivers samples and they are screened."""
        return self.state == self.health == "running"


class SinkStatus(StatusModel):
    """State of one alarm sink: messages that wait, and an error or an empty text."""

    waiting: int = 0
    error: str = ""


class LatencyStatus(StatusModel):
    """Quantiles of a latency in ms over `samples` samples; None before the first one."""

    p50: float | None = None
    p99: float | None = None
    samples: int = 0


class AgentStatus(StatusModel):
    """State of a whole agent, as in `STATUS_FILE` and at /status.

    `sources` is keyed by source id, `alarms` by sink id, `latency_ms` by stage. `device_id` is empty before enrolment,
    `mode` from an older agent. `group_settings` are those of the device's group, in force. `clock_offset_s` is the
    device's clock minus the service's, None before the first heartbeat. `last_viewer` saw a sample last, since the
    start of the agent. `problems` are short texts for an operator; an empty list means healthy.
    """

    device_id: str
    process_id: int
    written_at_s: float
    metrics_address: str = ""
    mode: str = ""
    counters: AgentCounters = AgentCounters()
    spool: SpoolStatus = SpoolStatus()
    link: LinkStatus = LinkStatus()
    budget: BudgetStatus = BudgetStatus()
    verdicts: VerdictStatus = VerdictStatus()
    group_settings: GroupSettings = GroupSettings()
    sources: dict[str, SourceStatus] = {}
    alarms: dict[str, SinkStatus] = {}
    permits_live_views: bool = False
    last_viewer: str = ""
    latency_ms: dict[str, LatencyStatus] = {}
    clock_offset_s: float | None = None
    problems: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """Return the status as an indented JSON object."""
        return self.model_dump_json(indent=1).encode()


class ObservedStatus(AgentStatus):
    """Status as a reader found it: `live` if the agent answered itself, else from its file."""

    live: bool = False


def _probability(value: float) -> float:
    """Return the nearest value in [0, 1]; 0 for NaN."""
    return min(value, 1.0) if value > 0 else 0.0


def _reported_settings(message: fleet_pb2.HeartbeatRequest) -> GroupSettings | None:
    """Return the reported settings, None for values that no device can have in force."""
    try:
        return GroupSettings.from_message(message.settings) if message.HasField("settings") else None
    except SettingsError:
        return None


def read_status_file(state_dir: Path) -> AgentStatus:
    """Return the status that an agent wrote last; raises DataError if there is none that can be read."""
    path = state_dir / STATUS_FILE
    try:
        return AgentStatus.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise DataError(
            f"{path}: no status. Has an agent run with this state_dir? vedette edge run starts one."
        ) from None
