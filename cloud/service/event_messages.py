"""Events as devices get them: serialised once, when they are written or read."""

from collections.abc import Sequence
from typing import NamedTuple

from cloud.store.events import BundleChange, StoredEvent, WrittenEvent
from shared.samples import Verdict
from shared.wire import verdict_to_message
from vedette.v1 import detection_pb2

MAX_PUSHED_CELLS = 2**14  # of a verdict's map; a stream reads larger ones when it can send them


class PushedEvent(NamedTuple):
    """Event for the streams of a device; `data` is a serialised Event, empty if streams must read it from the store."""

    device_id: str
    cursor: int
    data: bytes


def pushed_events(written: Sequence[WrittenEvent]) -> list[PushedEvent]:
    """Return events for the streams, in order."""
    return [
        PushedEvent(item.device_id, item.event.cursor, b"" if _is_large(item.event) else event_bytes(item.event))
        for item in written
    ]


def event_bytes(event: StoredEvent) -> bytes:
    """Return a serialised Event; empty if its verdict was removed."""
    if event.content is None:
        return b""
    message = detection_pb2.Event(cursor=event.cursor)
    if isinstance(event.content, BundleChange):
        message.bundle_changed.bundle_name = event.content.bundle_name
        message.bundle_changed.bundle_id = event.content.bundle_id
    else:
        message.verdict.CopyFrom(verdict_to_message(event.content))
    return message.SerializeToString()


def _is_large(event: StoredEvent) -> bool:
    verdict = event.content
    anomaly_map = verdict.anomaly_map if isinstance(verdict, Verdict) else None
    return anomaly_map is not None and anomaly_map.size > MAX_PUSHED_CELLS
