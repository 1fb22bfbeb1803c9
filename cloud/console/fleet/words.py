"""Figures of devices in words."""

from typing import Any

from cloud.devices import HEALTH_WORDS, DeviceView, MissView, RunningView
from cloud.words import NO_FIGURE, SPACE, bytes_words, count_words, share_words
from shared.samples import Decision
from shared.status import WAITING
from shared.texts import at_most_percent


def device_on_page(device: DeviceView) -> dict[str, Any]:
    """Return one device with its figures in words."""
    figures = device.figures
    sent = share_words(figures.samples_sent, figures.samples_screened)
    return device.model_dump(mode="json") | {
        "name": device.title or device.device_id,
        "health_words": health_words(device),
        "trouble": device.advice or (device.warnings[0] if device.warnings else ""),
        "bundles": bundle_rows(device),
        "sent": sent,
        "alarms": share_words(figures.samples_alarmed, figures.samples_screened),
        "upload": share_words(figures.bytes_uploaded, figures.bytes_screened),
        "spooled": count_words(figures.spool_samples),
        "dropped": count_words(figures.samples_dropped) if figures.samples_dropped else "",
        "anomalous": count_words(device.decisions[Decision.ANOMALOUS]),
        "missed_words": miss_words(device.missed),
        "running": [_running_on_page(item) for item in device.running],
        "missed_short": at_most_words(device.missed.at_most_share),
        "figures": {
            "Screened": count_words(figures.samples_screened),
            "Sent": f"{count_words(figures.samples_sent)} ({sent})",
            "Uploaded": f"{bytes_words(figures.bytes_uploaded)} of {bytes_words(figures.bytes_screened)}",
            "In spool": f"{count_words(figures.spool_samples)} ({bytes_words(figures.spool_bytes)})",
            "Pending here": count_words(figures.pending),
            "Alarms": count_words(figures.samples_alarmed),
            "Rejected": count_words(figures.samples_rejected),
            "Dropped": count_words(figures.samples_dropped),
        },
    }


def _running_on_page(item: RunningView) -> dict[str, Any]:
    shown = item.model_dump(mode="json")
    missed = item.missed
    return shown | {
        "missed_words": miss_words(missed) if missed is not None else "",
        "missed_short": at_most_words(missed.at_most_share if missed is not None else None),
    }


def health_words(device: DeviceView) -> str:
    """Return the state of a device; an idle one names the bundle that it waits for."""
    if device.health != "waiting":
        return HEALTH_WORDS[device.health]
    names = sorted({item.bundle_name for item in device.running if item.source_state == WAITING} - {""})
    return f"idle: waits for {names[0]}" + (f" and {len(names) - 1} more" if names[1:] else "") if names else "idle"


def bundle_rows(device: DeviceView) -> list[dict[str, str]]:
    """Return the bundles of a device, each once: the id, and a note unless it is the wanted one."""
    rows: dict[str, dict[str, str]] = {}
    for item in device.running:
        name = item.bundle_id or item.bundle_name
        note = "" if item.state == "current" else item.state
        rows.setdefault(name, {"bundle_id": item.bundle_id, "name": name or NO_FIGURE, "note": note})
    return list(rows.values())


def at_most_words(share: float | None) -> str:
    """Return an upper bound in percent, with two significant digits, rounded up."""
    if share is None:
        return NO_FIGURE
    return f"≤{SPACE}{at_most_percent(share)}{SPACE}%"


def miss_words(missed: MissView) -> str:
    """Return the bound on missed anomalies in a sentence."""
    if missed.at_most_share is None:
        return "No audit has been judged yet: the share of missed anomalies is unknown."
    bound = at_most_words(missed.at_most_share).removeprefix(f"≤{SPACE}")
    found = f", {count_words(missed.anomalous)} of them anomalous" if missed.anomalous else ", none of them anomalous"
    lost = ""
    if missed.unknown:
        lost = f"; {count_words(missed.unknown)} without a decision count as anomalous"
    share = f"At most {bound} of the accepted samples so far (95{SPACE}%)"
    return f"{share}, from {count_words(missed.audits)} audits{found}{lost}."
