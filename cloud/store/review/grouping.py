"""Grouping of verdicts into review items: pure functions, without a store.

A verdict joins an item of its source and kind if it was captured within GAP_S of it, and for images if the largest
value of its anomaly map is at about the same place. An item that somebody has decided takes no more verdicts, and
neither does one that is full or as long as MAX_ITEM_S; the next verdict begins a new one. A verdict that a mute hides
joins only items of the same mute, so an item is hidden as a whole or not at all.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from cloud.store.review.severity import JOINED, Severity
from cloud.store.review.signature import Signature
from shared.clocks import MAX_CLOCK_ERROR_S, MAX_LATENCY_S

GAP_S = 60.0
MAX_VERDICTS = 1000
MAX_ITEM_S = 3600.0
SAME_PLACE = 0.25  # distance of two places, as a share of the sides of the image

Place = tuple[float, float]
"""Row and column in an image, in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Verdict that asks for a person. `p_value`: fused, or the edge's where the cloud could not judge.

    `signature` is None where nothing shows what deviates; `muted_by` is the number of the mute that hides it.
    """

    number: int
    device_id: str
    source_id: str
    modality: str
    severity: Severity
    at_s: float
    judged_at_s: float
    p_value: float
    origin: str = ""
    place: Place | None = None
    bundle_id: str = ""
    contributions: tuple[tuple[str, float], ...] = ()
    signature: Signature | None = None
    muted_by: int | None = None


@dataclass(slots=True)
class Group:
    """Review item while it is built; `members` are the numbers of the verdicts that have joined it since.

    `signature` is that of a new cover, None while the cover is the same.
    """

    number: int
    device_id: str
    source_id: str
    modality: str
    severity: Severity
    first_at_s: float
    last_at_s: float
    judged_at_s: float
    last_judged_at_s: float
    verdicts: int
    p_value: float
    cover: int
    origin: str
    place: Place | None
    is_decided: bool
    is_new: bool
    is_raised: bool
    members: list[int]
    muted_by: int | None = None
    hidden_by: int | None = None
    signature: Signature | None = None
    has_new_cover: bool = False


def moment_of(captured_at_s: float, received_at_s: float) -> float:
    """Return when a sample was captured, or arrived if the clock of its device is implausible."""
    is_plausible = -MAX_LATENCY_S <= captured_at_s - received_at_s <= MAX_CLOCK_ERROR_S
    return min(captured_at_s, received_at_s) if is_plausible else received_at_s


def find_group(groups: Iterable[Group], asking: Asking) -> Group | None:
    """Return the item that a verdict joins: of several the nearest in time; None begins a new one."""
    near = [(_gap_s(group, asking), group.number, group) for group in groups if _takes(group, asking)]
    return min(near, key=lambda item: item[:2])[2] if near else None


def new_group(number: int, asking: Asking) -> Group:
    """Return an item of one verdict."""
    return Group(
        number,
        asking.device_id,
        asking.source_id,
        asking.modality,
        asking.severity,
        first_at_s=asking.at_s,
        last_at_s=asking.at_s,
        judged_at_s=asking.judged_at_s,
        last_judged_at_s=asking.judged_at_s,
        verdicts=1,
        p_value=asking.p_value,
        cover=asking.number,
        origin=asking.origin,
        place=asking.place,
        is_decided=False,
        is_new=True,
        is_raised=False,
        members=[asking.number],
        muted_by=asking.muted_by,
        hidden_by=asking.muted_by,
        signature=asking.signature,
        has_new_cover=True,
    )


def join(group: Group, asking: Asking) -> None:
    """Add a verdict to an item."""
    group.verdicts += 1
    group.members.append(asking.number)
    group.first_at_s = min(group.first_at_s, asking.at_s)
    if asking.at_s >= group.last_at_s:
        group.last_at_s, group.place = asking.at_s, asking.place or group.place
    group.last_judged_at_s = max(group.last_judged_at_s, asking.judged_at_s)
    if asking.p_value < group.p_value:
        group.p_value, group.cover, group.origin = asking.p_value, asking.number, asking.origin
        group.signature, group.has_new_cover = asking.signature, True
    if asking.severity is Severity.ALARM and group.severity is not Severity.ALARM:
        group.severity, group.is_raised = Severity.ALARM, True


def _takes(group: Group, asking: Asking) -> bool:
    same_kind = group.severity is asking.severity or {group.severity, asking.severity} <= set(JOINED)
    if group.is_decided or group.muted_by != asking.muted_by or not same_kind:
        return False
    if group.modality != asking.modality or group.verdicts >= MAX_VERDICTS:
        return False
    length_s = max(group.last_at_s, asking.at_s) - min(group.first_at_s, asking.at_s)
    return _gap_s(group, asking) <= GAP_S and length_s <= MAX_ITEM_S and _same_place(group.place, asking.place)


def _gap_s(group: Group, asking: Asking) -> float:
    return max(group.first_at_s - asking.at_s, asking.at_s - group.last_at_s, 0.0)


def _same_place(one: Place | None, other: Place | None) -> bool:
    return one is None or other is None or math.dist(one, other) <= SAME_PLACE
