"""State of each device in words and as numbers, for the console, the HTTP API and `vedette cloud devices`."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.fleet_queries import DeviceRow, device_rows
from cloud.store.registry import RegisteredBundle
from cloud.store.releases import wanted_by_device
from cloud.words import bytes_words, count_words, duration_words, share_words
from shared.samples import Decision
from shared.status import WAITING, RunningBundle

MISSED_HEARTBEATS = 3  # until a device counts as silent
ENDED = ("ended", "failed")
# Bounds of a device on a page, whatever its heartbeat holds.
MAX_RUNNING, MAX_WARNINGS = 32, 16
MAX_NAME_CHARACTERS, MAX_WARNING_CHARACTERS = 128, 300
CERTIFICATE_WARNING_S = 14 * 86_400.0


def late_after_s(heartbeat_s: float) -> float:
    """Return after how many seconds without a heartbeat a device counts as silent."""
    return MISSED_HEARTBEATS * heartbeat_s


def device_view(
    row: DeviceRow, wanted: Mapping[str, RegisteredBundle], *, now_s: float, late_after_s: float
) -> dict[str, Any]:
    """Return one device with its health, counters, running bundles and warnings.

    `wanted`: bundle of each name that the device should run.
    """
    heartbeat, counters = row.heartbeat, row.heartbeat.counters
    health, advice = _health(row, now_s, late_after_s)
    warnings = [text[:MAX_WARNING_CHARACTERS] for text in heartbeat.warnings[:MAX_WARNINGS]]
    if (left_out := len(heartbeat.warnings) - MAX_WARNINGS) > 0:
        warnings.append(f"{left_out} more warnings are not shown.")
    if row.revoked_at_s is None and row.certificate_expires_at_s - now_s < CERTIFICATE_WARNING_S:
        warnings.append(_certificate_warning(row.certificate_expires_at_s - now_s))
    return {
        "device_id": row.device_id,
        "site": row.site,
        "group": row.group,
        "health": health,
        "advice": advice,
        "heartbeat_at_s": row.heartbeat_at_s,
        "enrolled_at_s": row.enrolled_at_s,
        "certificate_expires_at_s": row.certificate_expires_at_s,
        "clock_offset_s": row.clock_offset_s,
        "agent_version": heartbeat.agent_version[:MAX_NAME_CHARACTERS],
        "figures": {
            "Screened": count_words(counters.samples_screened),
            "Sent": f"{count_words(counters.samples_sent)}"
            f" ({share_words(counters.samples_sent, counters.samples_screened)})",
            "Uploaded": f"{bytes_words(counters.bytes_uploaded)}"
            f" ({share_words(counters.bytes_uploaded, counters.bytes_screened)})",
            "In spool": f"{count_words(heartbeat.spool_samples)} ({bytes_words(heartbeat.spool_bytes)})",
            "Pending here": count_words(row.pending),
            "Alarms": count_words(counters.samples_alarmed),
            "Rejected": count_words(counters.samples_rejected),
            "Dropped": count_words(counters.samples_dropped),
        },
        "alarming": [name for name, count in (("Dropped", counters.samples_dropped),) if count],
        "decisions": {decision.value: row.decisions.get(decision, 0) for decision in Decision},
        "running": [
            {
                "source_id": item.source_id[:MAX_NAME_CHARACTERS],
                "bundle_id": item.bundle_id[:MAX_NAME_CHARACTERS],
                "wanted_bundle_id": bundle.bundle_id if (bundle := wanted.get(item.bundle_name)) else "",
                "artefact": item.artefact[:MAX_NAME_CHARACTERS],
                "state": _bundle_state(item, wanted.get(item.bundle_name))[: 2 * MAX_NAME_CHARACTERS],
                "source_state": item.state[:MAX_NAME_CHARACTERS],
            }
            for item in heartbeat.running[:MAX_RUNNING]
        ],
        "warnings": warnings,
    }


def device_figures(
    row: DeviceRow, wanted: Mapping[str, RegisteredBundle], *, now_s: float, late_after_s: float
) -> dict[str, Any]:
    """Return one device as on its page, with its counters as numbers in place of words."""
    heartbeat, counters = row.heartbeat, row.heartbeat.counters
    figures = {
        **counters.model_dump(),
        "spool_samples": heartbeat.spool_samples,
        "spool_bytes": heartbeat.spool_bytes,
        "pending": row.pending,
        "sent_share": share(counters.samples_sent, counters.samples_screened),
        "upload_ratio": share(counters.bytes_uploaded, counters.bytes_screened),
    }
    return device_view(row, wanted, now_s=now_s, late_after_s=late_after_s) | {"figures": figures}


async def read_devices(
    connection: AsyncConnection,
    *,
    now_s: float,
    late_after_s: float,
    after: str = "",
    size: int | None = None,
    device_id: str = "",
) -> list[dict[str, Any]]:
    """Return the figures of devices by id: all, the first `size` after the id `after`, or `device_id` alone."""
    rows = await device_rows(connection, after=after, size=size, device_id=device_id)
    wanted = await wanted_by_device(connection)
    return [
        device_figures(row, wanted.of(row.device_id, row.group), now_s=now_s, late_after_s=late_after_s) for row in rows
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
        return "waiting", "A source waits for its bundle, and screens nothing until that is published and fetched."
    if states and all(state in ENDED for state in states):
        advice = "No source delivers samples: restart the agent to read again."
        return "failed" if "failed" in states else "ended", advice
    return ("warning", "") if row.heartbeat.warnings else ("healthy", "")


def _certificate_warning(left_s: float) -> str:
    if left_s <= 0:
        return "The certificate has expired: enrol the device again."
    return f"The certificate expires in {duration_words(left_s)}: enrol the device again."


def _bundle_state(running: RunningBundle, wanted: RegisteredBundle | None) -> str:
    if not running.bundle_id and running.state == "failed":
        return "not loaded"
    if not running.bundle_id:
        return f"{wanted.bundle_id} is being fetched" if wanted else f"{running.bundle_name} is not published"
    if wanted is None:
        return "not in the registry"
    return "current" if wanted.bundle_id == running.bundle_id else f"{wanted.bundle_id} is wanted: update pending"
