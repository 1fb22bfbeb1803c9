"""Figures of the fleet as numbers, for the HTTP API."""

from typing import Any

from cloud.devices import share
from cloud.store.fleet_queries import FleetSummary
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
        "sent": counters.samples_sent,
        "sent_share": share(counters.samples_sent, counters.samples_screened),
        "uploaded_bytes": counters.bytes_uploaded,
        "screened_bytes": counters.bytes_screened,
        "upload_ratio": share(counters.bytes_uploaded, counters.bytes_screened),
        "pending": summary.pending,
        "pending_age_s": None if oldest_s is None or not summary.pending else max(now_s - oldest_s, 0.0),
        "spooled": summary.spool_samples,
        "dropped": counters.samples_dropped,
        "verdicts": sum(summary.decisions.values()),
        "anomalous": summary.decisions.get(Decision.ANOMALOUS, 0),
        "undecided": summary.decisions.get(Decision.UNDECIDED, 0),
    }
