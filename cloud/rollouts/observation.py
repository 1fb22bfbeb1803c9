"""Observation of a rollout: counts of its devices, and of the devices that do not have the bundle yet."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, fields
from functools import reduce
from statistics import median
from typing import Self

from shared.status import HeartbeatCounters

MAX_WEIGHT = 10.0  # of one device, in samples of the median device


@dataclass(frozen=True, slots=True)
class ScreeningCounts:
    """Samples screened, and of them those forwarded (alarms among them) and alarmed."""

    screened: float = 0.0
    forwarded: float = 0.0
    alarmed: float = 0.0

    @classmethod
    def of(cls, counters: HeartbeatCounters) -> Self:
        """Return the counts of a heartbeat, with parts that do not exceed the whole."""
        screened = counters.samples_screened
        return cls(screened, min(counters.samples_forwarded, screened), min(counters.samples_alarmed, screened))

    def since(self, earlier: "ScreeningCounts") -> "ScreeningCounts":
        """Return what was added since earlier counts; all of it if the device has started again from 0."""
        if self.screened < earlier.screened:
            return self
        screened = self.screened - earlier.screened
        return ScreeningCounts(
            screened,
            min(screened, max(0.0, self.forwarded - earlier.forwarded)),
            min(screened, max(0.0, self.alarmed - earlier.alarmed)),
        )


def total(each: Sequence[ScreeningCounts]) -> ScreeningCounts:
    """Return the sum over devices; one that claims many times the median's samples is scaled down to `MAX_WEIGHT`."""
    busy = [item for item in each if item.screened > 0]
    if not busy:
        return ScreeningCounts()
    most = MAX_WEIGHT * median(item.screened for item in busy)
    scales = [min(1.0, most / item.screened) for item in busy]
    names = [item.name for item in fields(ScreeningCounts)]
    sums = {name: sum(getattr(item, name) * scale for item, scale in zip(busy, scales, strict=True)) for name in names}
    return ScreeningCounts(**sums)


def without_most(each: Sequence[ScreeningCounts], name: str, count: int) -> ScreeningCounts:
    """Return the sum without the `count` devices that have the most `name` samples."""
    ordered = sorted(each, key=lambda item: (getattr(item, name), item.screened))
    return total(ordered[: max(0, len(ordered) - count)])


@dataclass(frozen=True, slots=True)
class Tally:
    """Verdicts on samples that one bundle screened.

    `suspicious` samples were forwarded as suspicious, and the cloud judged `dismissed` of them normal; `audits` are
    accepted samples that were sent at random, and the cloud judged `missed` of them anomalous.
    """

    suspicious: int = 0
    dismissed: int = 0
    audits: int = 0
    missed: int = 0

    def plus(self, other: "Tally") -> "Tally":
        """Return the sum of both."""
        return Tally(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


def tally_without_most(each: Sequence[Tally], name: str, count: int) -> Tally:
    """Return the sum without the `count` devices that have the most `name` samples."""
    ordered = sorted(each, key=lambda item: getattr(item, name))
    return reduce(Tally.plus, ordered[: max(0, len(ordered) - count)], Tally())


@dataclass(frozen=True, slots=True)
class Observation:
    """State of a rollout at one moment.

    The stages include `wanted` devices that report; `running` of them run the new bundle. `failed` ones tried it and
    went back; `unhealthy` ones run it and are silent or deliver nothing. `others` do not have it yet.
    `new` counts since the swap, `new_by_device` the same for each device. `before` are the same devices until it,
    `rest` the others since the start of the rollout. `stage_samples` were screened by the new bundle in this stage,
    which has lasted `stage_s`. `new_verdicts_by_device` are those of the devices in the stages.
    """

    stage_s: float
    stage_samples: float
    wanted: int = 0
    running: int = 0
    failed: Sequence[str] = ()
    unhealthy: Sequence[str] = ()
    others: int = 0
    others_unhealthy: int = 0
    new: ScreeningCounts = field(default_factory=ScreeningCounts)
    new_by_device: Sequence[ScreeningCounts] = ()
    before: ScreeningCounts = field(default_factory=ScreeningCounts)
    rest: ScreeningCounts = field(default_factory=ScreeningCounts)
    new_verdicts: Tally = field(default_factory=Tally)
    old_verdicts: Tally = field(default_factory=Tally)
    new_verdicts_by_device: Sequence[Tally] = ()
