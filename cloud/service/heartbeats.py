"""Bounds of stored heartbeats: a heartbeat that is too large is cut, never refused, and says by how much."""

from shared.clocks import DEVICE_CLOCK, device_clock_warning
from shared.status import Heartbeat

MAX_RUNNING, MAX_WARNINGS = 64, 32
MAX_NAME_CHARACTERS, MAX_WARNING_CHARACTERS = 128, 400


def bounded(heartbeat: Heartbeat) -> Heartbeat:
    """Return the heartbeat with bounded lists and texts; a warning counts the cut ones."""
    running = [
        item.model_copy(update={name: text[:MAX_NAME_CHARACTERS] for name, text in item.model_dump().items()})
        for item in heartbeat.running[:MAX_RUNNING]
    ]
    warnings = [text[:MAX_WARNING_CHARACTERS] for text in heartbeat.warnings[: MAX_WARNINGS - 2]]
    long = [text for item in heartbeat.running[:MAX_RUNNING] for text in item.model_dump().values()]
    cut = {
        "sources": len(heartbeat.running) - len(running),
        "warnings": len(heartbeat.warnings) - len(warnings),
        "long texts": sum(len(text) > MAX_NAME_CHARACTERS for text in long)
        + sum(len(text) > MAX_WARNING_CHARACTERS for text in heartbeat.warnings[: MAX_WARNINGS - 2]),
    }
    if any(cut.values()):
        parts = ", ".join(f"{count} {what}" for what, count in cut.items() if count)
        warnings.append(f"heartbeat too large: {parts} cut")
    changed = {
        "running": tuple(running),
        "warnings": tuple(warnings),
        "agent_version": heartbeat.agent_version[:64],
        "settings_refusal": heartbeat.settings_refusal[:MAX_WARNING_CHARACTERS],
    }
    return heartbeat.model_copy(update=changed)


def with_clock_warning(heartbeat: Heartbeat, offset_s: float | None) -> Heartbeat:
    """Return the heartbeat with a warning if the device's clock is off against the service's by `offset_s`.

    The device's own warning of its clock is replaced, because the service measures it with each heartbeat.
    """
    clock = device_clock_warning(offset_s)
    others = [text for text in heartbeat.warnings if offset_s is None or not text.startswith(DEVICE_CLOCK)]
    return heartbeat.model_copy(update={"warnings": (*([clock] if clock else []), *others)})
