"""State of each device, for the console, the HTTP API and `vedette cloud devices`."""

from collections.abc import Collection, Mapping

from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.fleet_queries import DeviceRow, device_rows
from cloud.store.registry import RegisteredBundle
from cloud.store.releases import wanted_by_device
from cloud.words import count_words, duration_words, share_words
from shared.samples import Decision
from shared.status import WAITING, HeartbeatCounters, RunningBundle

MISSED_HEARTBEATS = 3  # until a device counts as silent
ENDED = ("ended", "failed")
_DECISIONS = tuple(Decision)  # an enumeration is slow to list
# Bounds of a device on a page, whatever its heartbeat holds.
MAX_RUNNING, MAX_WARNINGS = 32, 16
MAX_NAME_CHARACTERS, MAX_WARNING_CHARACTERS = 128, 300
CERTIFICATE_WARNING_S = 14 * 86_400.0
# A screener forwards 5 % of normal data by default, and alarms on far less. Shares from here on are a flood.
FLOOD_FORWARDED, FLOOD_ALARMED, FLOOD_SAMPLES = 0.25, 0.1, 100
HEALTH_WORDS = {
    "silent": "silent",
    "failed": "source failed",
    "flooding": "flooding",
    "waiting": "waits for a bundle",
    "ended": "source ended",
    "never seen": "never seen",
    "warning": "warning",
    "healthy": "healthy",
    "revoked": "revoked",
}
"""Each state of a device in words, those that need somebody first."""
HEALTH_ORDER = tuple(HEALTH_WORDS)


def late_after_s(heartbeat_s: float) -> float:
    """Return after how many seconds without a heartbeat a device counts as silent."""
    return MISSED_HEARTBEATS * heartbeat_s


class RunningView(BaseModel):
    """Bundle that one source runs, and the one that it should run; empty where there is none."""

    model_config = ConfigDict(frozen=True)

    source_id: str
    bundle_id: str
    wanted_bundle_id: str
    artefact: str
    state: str
    source_state: str


class DeviceFigures(HeartbeatCounters):
    """Counters of one device; a share is in [0, 1], or None where nothing was screened yet."""

    spool_samples: int
    spool_bytes: int
    pending: int
    sent_share: float | None
    upload_ratio: float | None


class DeviceView(BaseModel):
    """One device with its health, counters, running bundles and warnings.

    `alarming` names the figures that need attention; `decisions` counts the verdicts on the device's samples.
    `settings` are those in force that its group can set, None if unknown.
    """

    model_config = ConfigDict(frozen=True)

    device_id: str
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
    return DeviceView(
        device_id=row.device_id,
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
        running=tuple(_running(item, wanted.get(item.bundle_name)) for item in heartbeat.running[:MAX_RUNNING]),
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


def share(part: int, whole: int) -> float | None:
    """Return a share in [0, 1]; None if `whole` is 0."""
    return part / whole if whole > 0 else None


def _health(row: DeviceRow, now_s: float, late_after_s: float) -> tuple[str, str]:
    if row.revoked_at_s is not None:
        return "revoked", "The certificate is revoked: enrol the device again to restore access."
    if row.heartbeat_at_s is None:
        return "never seen", "Enrolled, but no heartbeat yet: start the agent with vedette edge run --config edge.toml."
    if now_s - row.heartbeat_at_s > late_after_s:
        return "silent", "No heartbeat: check power and network. Its samples wait in its spool."
    states = [item.state for item in row.heartbeat.running]
    if WAITING in states:
        names = ", ".join(sorted({item.bundle_name for item in row.heartbeat.running if item.state == WAITING}))
        waited = f"the bundle {names[:MAX_NAME_CHARACTERS]}" if names else "its bundle"
        return "waiting", f"A source waits for {waited}, and screens nothing until it is published and fetched."
    if states and all(state in ENDED for state in states):
        advice = "No source delivers samples: restart the agent to read again."
        return "failed" if "failed" in states else "ended", advice
    if flood := _flood(row.heartbeat.counters):
        return "flooding", flood
    return ("warning", "") if row.heartbeat.warnings else ("healthy", "")


def _flood(counters: HeartbeatCounters) -> str:
    """Return how far the shares of all samples so far are above what a screener promises; empty if they are not."""
    screened = counters.samples_screened
    if screened < FLOOD_SAMPLES:
        return ""
    forwarded, alarmed = counters.samples_forwarded / screened, counters.samples_alarmed / screened
    if forwarded < FLOOD_FORWARDED and alarmed < FLOOD_ALARMED:
        return ""
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
    return RunningView(
        source_id=item.source_id[:MAX_NAME_CHARACTERS],
        bundle_id=item.bundle_id[:MAX_NAME_CHARACTERS],
        wanted_bundle_id=wanted.bundle_id if wanted is not None else "",
        artefact=item.artefact[:MAX_NAME_CHARACTERS],
        state=_bundle_state(item, wanted)[: 2 * MAX_NAME_CHARACTERS],
        source_state=item.state[:MAX_NAME_CHARACTERS],
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
