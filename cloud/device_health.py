"""States of a device by its heartbeat, in the order in which they need somebody."""

from shared.status import WAITING, Heartbeat, HeartbeatCounters

# A screener forwards 5 % of normal data by default, and alarms on far less. Shares from here on are a flood.
FLOOD_FORWARDED, FLOOD_ALARMED, FLOOD_SAMPLES = 0.25, 0.1, 100
ENDED = ("ended", "failed")
SILENT, NEVER_SEEN, REVOKED = "silent", "never seen", "revoked"
HEALTHY = "healthy"
HEALTH_ORDER = (
    SILENT,
    "failed",
    "flooding",
    "waiting",
    "ended",
    "drifting",
    NEVER_SEEN,
    "warning",
    HEALTHY,
    REVOKED,
)
"""Each state, those that need somebody first."""


def reported_health(heartbeat: Heartbeat) -> str:
    """Return the worst state that a heartbeat reports, as long as the device is neither silent nor revoked."""
    states = [item.state for item in heartbeat.running]
    all_ended = bool(states) and all(state in ENDED for state in states)
    found = {
        "failed": all_ended and "failed" in states,
        "flooding": is_flood(heartbeat.counters),
        "waiting": WAITING in states,
        "ended": all_ended,
        "drifting": heartbeat.is_drifting,
        "warning": bool(heartbeat.warnings or heartbeat.settings_refusal),
    }
    return next((health for health in HEALTH_ORDER if found.get(health)), HEALTHY)


def is_flood(counters: HeartbeatCounters) -> bool:
    """Return whether the shares of all samples so far are far above what a screener promises."""
    screened = counters.samples_screened
    if screened < FLOOD_SAMPLES:
        return False
    forwarded, alarmed = counters.samples_forwarded / screened, counters.samples_alarmed / screened
    return forwarded >= FLOOD_FORWARDED or alarmed >= FLOOD_ALARMED
