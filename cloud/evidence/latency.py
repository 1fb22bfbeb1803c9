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


@dataclass(frozen=True, slots=True)
class LatencyStage:
    """One stage of a sample's way from its capture to its verdict."""

    name: str
    seconds: float

    @property
    def words(self) -> str:
        """Duration in words."""
        return duration_words(self.seconds)


def stages_of(
    captured_at_s: float, sample_id: uuid.UUID, received_at_s: float, judged_at_s: float
) -> tuple[LatencyStage, ...]:
    """Return the stages whose times are plausible; a stage before an implausible time is left out."""
    routed_at_s = (sample_id.int >> 80) / 1000 if sample_id.version == 7 else None
    stages = []
    begin_s = captured_at_s if _is_plausible(captured_at_s, received_at_s) else None
    if routed_at_s is not None and _is_plausible(routed_at_s, received_at_s):
        if begin_s is not None and begin_s <= routed_at_s:
            stages.append(LatencyStage("screening on the device", routed_at_s - begin_s))
            begin_s = routed_at_s
        elif begin_s is None:
            begin_s = routed_at_s
    if begin_s is not None:
        stages.append(LatencyStage("spool and transfer", max(0.0, received_at_s - begin_s)))
    return (*stages, LatencyStage("queue and analysis", max(0.0, judged_at_s - received_at_s)))
