"""Latencies of verdicts, from clocks that may be wrong: never negative, never years."""

import uuid
from dataclasses import dataclass

from cloud.words import duration_words
from shared.clocks import MAX_CLOCK_ERROR_S, MAX_LATENCY_S, clock_words


@dataclass(frozen=True, slots=True)
class Latency:
    """Time from capture to verdict, at least 0.

    `parts`: what it consists of. `clock`: which clock is off and by how much, empty if none is; the latency then
    begins at the next moment that is plausible.
    """

    seconds: float
    words: str
    parts: str
    clock: str


def latency_of(captured_at_s: float, sample_id: uuid.UUID, received_at_s: float, judged_at_s: float) -> Latency:
    """Return the latency of a verdict.

    Captures are stamped by a sensor, ids (UUIDv7) by the device, the other moments by the service. A moment is
    plausible if it is at most MAX_CLOCK_ERROR_S after the sample's arrival and at most MAX_LATENCY_S before it.
    """
    routed_at_s = (sample_id.int >> 80) / 1000 if sample_id.version == 7 else captured_at_s
    begin_s, since, clock = captured_at_s, "", ""
    if not _is_plausible(captured_at_s, received_at_s):
        if _is_plausible(routed_at_s, received_at_s):
            begin_s, since = routed_at_s, " since the device screened it"
            clock = _finding("the time of capture", captured_at_s - routed_at_s, "the device's clock")
        else:
            begin_s, since = received_at_s, " since it arrived"
            clock = _finding("the device's clock", routed_at_s - received_at_s, "the service's")
    begin_s = min(begin_s, received_at_s)
    total_s = max(0.0, judged_at_s - begin_s)
    judging_s = max(0.0, judged_at_s - received_at_s)
    parts = f"{duration_words(received_at_s - begin_s)} to the cloud, {duration_words(judging_s)} to the verdict"
    return Latency(total_s, duration_words(total_s), f"{parts}{since}{'; ' if clock else ''}{clock}", clock)


def _is_plausible(moment_s: float, received_at_s: float) -> bool:
    return -MAX_LATENCY_S <= moment_s - received_at_s <= MAX_CLOCK_ERROR_S


def _finding(name: str, offset_s: float, reference: str) -> str:
    return f"{name} is {clock_words(offset_s, reference)}" if abs(offset_s) > MAX_CLOCK_ERROR_S else f"{name} is off"
