"""State of each device, for the console, the HTTP API and `vedette cloud devices`."""

from collections.abc import Collection, Mapping

from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.device_health import ENDED, HEALTH_ORDER, NEVER_SEEN, REVOKED, SILENT, reported_health
from cloud.store.fleet_list import FleetPage, FleetQuery, fleet_page
from cloud.store.fleet_queries import DeviceRow, device_rows
from cloud.store.registry import RegisteredBundle
from cloud.store.releases import wanted_by_device
from cloud.words import count_words, duration_words, share_words
from shared.miss_bound import bound_of
from shared.samples import Decision
from shared.status import WAITING, Heartbeat, HeartbeatCounters, RunningBundle

MISSED_HEARTBEATS = 3  # until a device counts as silent
_DECISIONS = tuple(Decision)  # an enumeration is slow to list
# Bounds of a device on a page, whatever its heartbeat holds.
MAX_RUNNING, MAX_WARNINGS = 32, 16
MAX_NAME_CHARACTERS, MAX_WARNING_CHARACTERS = 128, 300
CERTIFICATE_WARNING_S = 14 * 86_400.0
HEALTH_WORDS = {health: health for health in HEALTH_ORDER} | {
    "failed": "source failed",
    "waiting": "idle",
    "ended": "source ended",
}
"""Each state of a device in words, those that need somebody first."""


def late_after_s(heartbeat_s: float) -> float:
    """Return after how many seconds without a heartbeat a device counts as silent."""
    return MISSED_HEARTBEATS * heartbeat_s


class MissView(BaseModel):
    """Judged audits of a device, and the share of missed anomalies among the samples that stayed on it.

    `anomalous` of the `audits` were anomalous to the cloud, and `unknown` have no decision, so the bound counts them as
    anomalous. With a probability of 95 % the mean share so far is at most `at_most_share`, at all times; None without
    an audit.
    """

    model_config = ConfigDict(frozen=True)

    audits: int
    anomalous: int
    unknown: int = 0
    at_most_share: float | None


class RunningView(BaseModel):
    """Bundle that one source runs, and the one that it should run; empty where there is none.

    `missed` is the bound of this source and bundle as the device reports it; None from an older agent. `limit_words`
    say whether its `max_miss_rate` was held, empty without one.
    """

    model_config = ConfigDict(frozen=True)

    source_id: str
    bundle_name: str
    bundle_id: str
    wanted_bundle_id: str
    artefact: str
    state: str
    source_state: str
    missed: MissView | None = None
    audit_share: float | None = None
    forward_p_value: float | None = None
    limit_words: str = ""


class DeviceFigures(HeartbeatCounters):
    """Counters of one device; a share is in [0, 1], or None where nothing was screened yet."""

    spool_samples: int
    spool_bytes: int
    pending: int
    sent_share: float | None
    upload_ratio: float | None


class DeviceView(BaseModel):
    """One device with its health, counters, running bundles and warnings.

    `title` is its name for people, empty if it has none. `alarming` names the figures that need attention; `decisions`
    counts the verdicts on the device's samples. `missed` is the worst bound of its sources, or that of all its stored
    audits where the agent reports none by source, or better figures than are stored. `settings` are those in force that
    its group can set, None if unknown.
    """

    model_config = ConfigDict(frozen=True)

    device_id: str
    title: str
    site: str
    group: str
    health: str
    advice: str
    heartbeat_at_s: float | None
    enrolled_at_s: float
    certificate_expires_at_s: float
    clock_offset_s: float | None
    settings: dict[str, float] | None
    agent_version: str
    figures: DeviceFigures
    alarming: tuple[str, ...]
    decisions: dict[Decision, int]
    missed: MissView
    running: tuple[RunningView, ...]
    warnings: tuple[str, ...]


def device_view(
    row: DeviceRow, wanted: Mapping[str, RegisteredBundle], *, now_s: float, late_after_s: float
) -> DeviceView:
    """Return the view of one device; texts of its heartbeat are shortened.

    `wanted`: bundle of each name that the device should run.
    """
    heartbeat = row.heartbeat
    health, advice = _health(row, now_s, late_after_s)
    running = tuple(_running(item, wanted.get(item.bundle_name)) for item in heartbeat.running[:MAX_RUNNING])
    return DeviceView(
        device_id=row.device_id,
        title=row.title,
        site=row.site,
        group=row.group,
        health=health,
        advice=advice,
        heartbeat_at_s=row.heartbeat_at_s,
        enrolled_at_s=row.enrolled_at_s,
        certificate_expires_at_s=row.certificate_expires_at_s,
        clock_offset_s=row.clock_offset_s,
        settings=heartbeat.settings.given() if heartbeat.settings is not None else None,
        agent_version=heartbeat.agent_version[:MAX_NAME_CHARACTERS],
        figures=_figures(row),
        alarming=("Dropped",) if heartbeat.counters.samples_dropped else (),
        decisions=dict.fromkeys(_DECISIONS, 0) | row.decisions,
        missed=_missed([item.missed for item in running if item.missed is not None], miss_view(row.audits)),
        running=running,
        warnings=_warnings(row, now_s),
    )


async def read_devices(
    connection: AsyncConnection,
    *,
    now_s: float,
    late_after_s: float,
    after: str = "",
    size: int | None = None,
    device_id: str = "",
    sites: Collection[str] = (),
) -> list[DeviceView]:
    """Return devices by id: all of these sites, the first `size` after the id `after`, or `device_id` alone."""
    rows = await device_rows(connection, after=after, size=size, device_id=device_id, sites=sites)
    wanted = await wanted_by_device(connection)
    return [
        device_view(row, wanted.of(row.device_id, row.group), now_s=now_s, late_after_s=late_after_s) for row in rows
    ]


async def read_fleet(
    connection: AsyncConnection,
    query: FleetQuery,
    *,
    now_s: float,
    late_after_s: float,
    sites: Collection[str] = (),
) -> tuple[FleetPage, list[DeviceView]]:
    """Return a page of the devices of these sites in the order of the query, and the views of its devices."""
    found = await fleet_page(connection, query, silent_since_s=now_s - late_after_s, sites=sites)
    wanted = await wanted_by_device(connection)
    times = {"now_s": now_s, "late_after_s": late_after_s}
    return found, [device_view(row, wanted.of(row.device_id, row.group), **times) for row in found.rows]


def miss_view(audits: Mapping[Decision, int]) -> MissView:
    """Return the bound that audits give, by decision."""
    anomalous, unknown = audits.get(Decision.ANOMALOUS, 0), audits.get(Decision.UNDECIDED, 0)
    count = anomalous + unknown + audits.get(Decision.NORMAL, 0)
    return _miss_view(count, anomalous, unknown)


def _miss_view(audits: int, anomalous: int, unknown: int) -> MissView:
    bound = bound_of(anomalous + unknown, audits) if audits else None
    return MissView(audits=audits, anomalous=anomalous, unknown=unknown, at_most_share=bound)


def _worst(bounds: Collection[MissView]) -> MissView | None:
    """Return the largest of some bounds, where an unknown one is the largest; None if there is none."""
    return max(bounds, key=lambda each: 2.0 if each.at_most_share is None else each.at_most_share, default=None)


def _missed(reported: Collection[MissView], stored: MissView) -> MissView:
    """Return the worst bound that a device reports for its sources, or that of all its stored audits.

    Stored audits were judged here, so a device cannot hide them: where it reports fewer anomalous or undecided audits
    than are stored, or more normal ones, the worse of both bounds counts.
    """
    worst = _worst(reported)
    if worst is None:
        return stored
    failed = sum(each.anomalous + each.unknown for each in reported)
    normal = sum(each.audits for each in reported) - failed
    stored_failed = stored.anomalous + stored.unknown
    if failed < stored_failed or normal > stored.audits - stored_failed:
        return _worst([worst, stored]) or stored
    return worst


def share(part: int, whole: int) -> float | None:
    """Return a share in [0, 1]; None if `whole` is 0."""
    return part / whole if whole > 0 else None


def _health(row: DeviceRow, now_s: float, late_after_s: float) -> tuple[str, str]:
    """Return the state of a device, and what to do about it."""
    if row.revoked_at_s is not None:
        return REVOKED, "The certificate is revoked: enrol the device again to restore access."
    if row.heartbeat_at_s is None:
        return NEVER_SEEN, "Enrolled, but no heartbeat yet: start the agent with vedette edge run --config edge.toml."
    if now_s - row.heartbeat_at_s > late_after_s:
        return SILENT, "No heartbeat: check power and network. Its samples wait in its spool."
    health = reported_health(row.heartbeat)
    return health, _advice(health, row.heartbeat)


def _advice(health: str, heartbeat: Heartbeat) -> str:
    """Return what to do about a state that a heartbeat reports; empty for those that need nothing."""
    if health == "waiting":
        return f"A source waits for {waited_bundle(heartbeat)}, and screens nothing until it is published and fetched."
    if health in ENDED:
        return "No source delivers samples: restart the agent to read again."
    if health == "drifting":
        return "The readings differ from the training data: check the source, or train a bundle on its present data."
    return _flood(heartbeat.counters) if health == "flooding" else ""


def waited_bundle(heartbeat: Heartbeat) -> str:
    """Return the bundles that sources wait for, in words."""
    names = ", ".join(sorted({item.bundle_name for item in heartbeat.running if item.state == WAITING} - {""}))
    return f"the bundle {names[:MAX_NAME_CHARACTERS]}" if names else "its bundle"


def _flood(counters: HeartbeatCounters) -> str:
    """Return how far the shares of all samples so far are above what a screener promises."""
    screened = counters.samples_screened
    return (
        f"Of {count_words(screened)} samples {share_words(counters.samples_forwarded, screened)} were forwarded and "
        f"{share_words(counters.samples_alarmed, screened)} were alarms; normal data gives a few percent at most. "
        "Check the source, or train a bundle on its present data."
    )


def _figures(row: DeviceRow) -> DeviceFigures:
    heartbeat, counters = row.heartbeat, row.heartbeat.counters
    return DeviceFigures(
        **vars(counters),
        spool_samples=heartbeat.spool_samples,
        spool_bytes=heartbeat.spool_bytes,
        pending=row.pending,
        sent_share=share(counters.samples_sent, counters.samples_screened),
        upload_ratio=share(counters.bytes_uploaded, counters.bytes_screened),
    )


def _running(item: RunningBundle, wanted: RegisteredBundle | None) -> RunningView:
    missed = item.missed
    return RunningView(
        source_id=item.source_id[:MAX_NAME_CHARACTERS],
        bundle_name=item.bundle_name[:MAX_NAME_CHARACTERS],
        bundle_id=item.bundle_id[:MAX_NAME_CHARACTERS],
        wanted_bundle_id=wanted.bundle_id if wanted is not None else "",
        artefact=item.artefact[:MAX_NAME_CHARACTERS],
        state=_bundle_state(item, wanted)[: 2 * MAX_NAME_CHARACTERS],
        source_state=item.state[:MAX_NAME_CHARACTERS],
        missed=_miss_view(missed.audits, missed.anomalous, missed.unknown) if missed is not None else None,
        audit_share=missed.audit_share if missed is not None else None,
        forward_p_value=missed.forward_p_value if missed is not None else None,
        limit_words=missed.limit_words[:MAX_WARNING_CHARACTERS] if missed is not None else "",
    )


def _warnings(row: DeviceRow, now_s: float) -> tuple[str, ...]:
    """Return the first warnings of the heartbeat, and those of the service."""
    given = row.heartbeat.warnings
    warnings = [text[:MAX_WARNING_CHARACTERS] for text in given[:MAX_WARNINGS]]
    if (left_out := len(given) - MAX_WARNINGS) > 0:
        warnings.append(f"{left_out} more warnings are not shown.")
    if refusal := row.heartbeat.settings_refusal:
        warnings.append(f"Settings of the group: {refusal[:MAX_WARNING_CHARACTERS]}")
    left_s = row.certificate_expires_at_s - now_s
    if row.revoked_at_s is None and left_s < CERTIFICATE_WARNING_S:
        warnings.append(_certificate_warning(left_s))
    return tuple(warnings)


def _certificate_warning(left_s: float) -> str:
    if left_s <= 0:
        return "The certificate has expired: enrol the device again."
    return f"The certificate expires in {duration_words(left_s)} and was not renewed: see the warnings of its agent."


def _bundle_state(running: RunningBundle, wanted: RegisteredBundle | None) -> str:
    if not running.bundle_id and running.state == "failed":
        return "not loaded"
    if not running.bundle_id:
        return f"{wanted.bundle_id} is being fetched" if wanted else f"{running.bundle_name} is not published"
    if wanted is None:
        return "not in the registry"
    return "current" if wanted.bundle_id == running.bundle_id else f"{wanted.bundle_id} is wanted: update pending"
