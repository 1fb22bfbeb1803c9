"""Figures of fleet and devices as numbers, for the HTTP API."""

from typing import Any

from cloud.console.views import device_view
from cloud.store.fleet_queries import DeviceRow, FleetSummary
from cloud.store.registry import RegisteredBundle
from shared.samples import Decision


def fleet_figures(summary: FleetSummary, now_s: float) -> dict[str, Any]:
    """Return the figures of the fleet; a share is in [0, 1], or None where nothing was counted yet."""
    counters = summary.counters
    oldest_s = summary.oldest_pending_at_s
    return {
        "now_s": now_s,
        "devices": summary.devices,
        "reporting": summary.reporting,
        "last_heartbeat_at_s": summary.last_heartbeat_at_s,
        "screened": counters.samples_screened,
        "forwarded": counters.samples_sent,
        "forwarded_share": _share(counters.samples_sent, counters.samples_screened),
        "uploaded_bytes": counters.bytes_uploaded,
        "screened_bytes": counters.bytes_screened,
        "upload_ratio": _share(counters.bytes_uploaded, counters.bytes_screened),
        "pending": summary.pending,
        "pending_age_s": None if oldest_s is None or not summary.pending else max(now_s - oldest_s, 0.0),
        "spooled": summary.spool_samples,
        "dropped": counters.samples_dropped,
        "verdicts": sum(summary.decisions.values()),
        "anomalous": summary.decisions.get(Decision.ANOMALOUS, 0),
        "undecided": summary.decisions.get(Decision.UNDECIDED, 0),
    }


def device_figures(
    row: DeviceRow, current: dict[str, RegisteredBundle], *, now_s: float, late_after_s: float
) -> dict[str, Any]:
    """Return one device as on its page, with its counters as numbers in place of words."""
    heartbeat, counters = row.heartbeat, row.heartbeat.counters
    figures = {
        **counters.model_dump(),
        "spool_samples": heartbeat.spool_samples,
        "spool_bytes": heartbeat.spool_bytes,
        "pending": row.pending,
        "forwarded_share": _share(counters.samples_sent, counters.samples_screened),
        "upload_ratio": _share(counters.bytes_uploaded, counters.bytes_screened),
    }
    return device_view(row, current, now_s=now_s, late_after_s=late_after_s) | {"figures": figures}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole > 0 else None
