"""Bounds of stored heartbeats: a heartbeat that is too large is cut, never refused, and says by how much."""

from shared.clocks import DEVICE_CLOCK, device_clock_warning
from shared.status import MAX_NEAR_COPIES, Heartbeat, RunningBundle
from vedette.v1 import fleet_pb2

MAX_RUNNING, MAX_WARNINGS = 64, 32
MAX_NAME_CHARACTERS, MAX_WARNING_CHARACTERS = 128, 400


def bounded(message: fleet_pb2.HeartbeatRequest) -> Heartbeat:
    """Return the heartbeat in a message, with bounded lists and texts; a warning counts the cut ones.

    Takes what is beyond the bounds of its lists out of the message, before anything is made of it.
    """
    kept = MAX_WARNINGS - 2
    cut = {
        "sources": max(0, len(message.running) - MAX_RUNNING),
        "warnings": max(0, len(message.warnings) - kept),
    }
    del message.running[MAX_RUNNING:], message.warnings[kept:], message.near_copies[MAX_NEAR_COPIES:]
    heartbeat = Heartbeat.from_message(message)
    running = [_bounded_bundle(item) for item in heartbeat.running]
    warnings = [_cut(text, MAX_WARNING_CHARACTERS) for text in heartbeat.warnings]
    names = [text for item in heartbeat.running for text in item.model_dump(exclude={"missed"}).values()]
    sentences = [*heartbeat.warnings, *(item.missed.limit_words for item in heartbeat.running if item.missed)]
    cut["long texts"] = sum(len(text) > MAX_NAME_CHARACTERS for text in names) + sum(
        len(text) > MAX_WARNING_CHARACTERS for text in sentences
    )
    if any(cut.values()):
        parts = ", ".join(f"{count} {what}" for what, count in cut.items() if count)
        warnings.append(f"heartbeat too large: {parts} cut")
    changed = {
        "running": tuple(running),
        "warnings": tuple(warnings),
        "agent_version": _cut(heartbeat.agent_version, 64),
        "settings_refusal": _cut(heartbeat.settings_refusal, MAX_WARNING_CHARACTERS),
    }
    return heartbeat.model_copy(update=changed)


def _bounded_bundle(item: RunningBundle) -> RunningBundle:
    texts = item.model_dump(exclude={"missed"})
    changed: dict[str, object] = {name: _cut(text, MAX_NAME_CHARACTERS) for name, text in texts.items()}
    if item.missed is not None:
        words = _cut(item.missed.limit_words, MAX_WARNING_CHARACTERS)
        changed["missed"] = item.missed.model_copy(update={"limit_words": words})
    return item.model_copy(update=changed)


def _cut(text: str, length: int) -> str:
    """Return a text of bounded length without NUL, which PostgreSQL does not store."""
    return text[:length].replace("\0", "\N{REPLACEMENT CHARACTER}")


def with_clock_warning(heartbeat: Heartbeat, offset_s: float | None) -> Heartbeat:
    """Return the heartbeat with a warning if the device's clock is off against the service's by `offset_s`.

    The device's own warning of its clock is replaced, because the service measures it with each heartbeat.
    """
    clock = device_clock_warning(offset_s)
    others = [text for text in heartbeat.warnings if offset_s is None or not text.startswith(DEVICE_CLOCK)]
    return heartbeat.model_copy(update={"warnings": (*([clock] if clock else []), *others)})
