"""Review items as JSON, and the filters of their lists."""

import math
from typing import Annotated, Any

from fastapi import Query, Request
from pydantic import BaseModel

from cloud.moments import rfc3339
from cloud.rest.access import caller_of
from cloud.rest.pages import Name, TimeText, time_or_none
from cloud.rest.verdicts import VerdictItem, verdict_item
from cloud.store.defect_classes import MAX_CLASS_CHARACTERS
from cloud.store.labels import Label
from cloud.store.review.decisions import StoredDecision
from cloud.store.review.item_filter import ItemFilter, ItemState
from cloud.store.review.items import StoredItem
from cloud.store.review.severity import Severity
from shared.modality import Modality

MAX_TEXT = 200


class DecisionItem(BaseModel):
    """Decision on a review item; `decision` is null after an undo that brought back none.

    `defect_class` is empty without one.
    """

    number: int
    item: int
    decision: Label | None
    defect_class: str
    note: str
    author: str
    at: str
    undoes: int | None


class ReviewItem(BaseModel):
    """Verdicts of one source that ask for a person.

    `p_value` is the lowest one, of the edge for undecided samples. `cover` is the oddest verdict, null where it has
    expired. `decision_number` is that of the newest decision, 0 without one: send it as `seen` to decide. `muted_by` is
    the number of the mute that hid the item, `muted` whether it still does. `near_copies` of its samples stayed on the
    device.
    """

    number: int
    device_id: str
    site: str
    source_id: str
    modality: Modality
    severity: Severity
    first_at: str
    last_at: str
    verdicts: int
    near_copies: int
    p_value: float
    cover: VerdictItem | None
    reviewed: bool
    decision: Label | None
    defect_class: str
    muted: bool
    muted_by: int | None
    decision_number: int
    decided_by: str
    decided_at: str | None
    note: str


class ReviewItemInFull(ReviewItem):
    """Review item with its first verdicts and all decisions, newest first."""

    members: list[VerdictItem]
    decisions: list[DecisionItem]


class ReviewItemPage(BaseModel):
    """Page of review items; `next` is null on the last page."""

    items: list[ReviewItem]
    next: str | None


class ReviewCounts(BaseModel):
    """Items left to the caller: by severity, and of the wanted severity by site and device; `muted` by themselves.

    `version` grows with each change of an item; `newest` is the number of the newest item.
    """

    left: dict[str, int]
    sites: dict[str, int]
    devices: dict[str, int]
    muted: int
    version: int
    newest: int


class DensityItem(BaseModel):
    """Number of items of a severity whose first capture is in the interval that begins at `at`."""

    at: str
    severity: Severity
    items: int


class Density(BaseModel):
    """Intervals with items, in the order of time."""

    items: list[DensityItem]


def item_filter(
    request: Request,
    severity: Severity | None = None,
    state: Annotated[ItemState, Query(description="left: not decided, and not reviewed by the caller.")] = (
        ItemState.LEFT
    ),
    defect_class: Annotated[
        str, Query(max_length=MAX_CLASS_CHARACTERS, description="Name of the decision's defect class.")
    ] = "",
    muted: Annotated[bool, Query(description="Only items that mutes hide; else only the others.")] = False,
    site: Name = "",
    device: Name = "",
    modality: Modality | None = None,
    text: Annotated[
        str, Query(max_length=MAX_TEXT, description="Part of a device, source or origin of the cover.")
    ] = "",
    odds: Annotated[
        float | None, Query(ge=1, le=1e12, allow_inf_nan=False, description="At least as rare as 1 in this.")
    ] = None,
    since: Annotated[TimeText, Query(alias="from", description="Captured at this time or later.")] = "",
    until: Annotated[TimeText, Query(alias="to", description="Captured before this time.")] = "",
) -> ItemFilter:
    """Return the filter in a request, restricted to the sites of the caller."""
    caller = caller_of(request)
    return ItemFilter(
        actor=caller.actor,
        sites=caller.sites,
        severity=severity,
        state=state,
        site=site,
        device_id=device,
        modality=modality,
        text=text,
        since_s=time_or_none(since),
        until_s=time_or_none(until),
        odds=odds,
        defect_class=defect_class,
        is_muted=muted,
    )


def review_item(item: StoredItem) -> dict[str, Any]:
    """Return one item as a JSON value."""
    plain = (
        "number",
        "device_id",
        "site",
        "source_id",
        "verdicts",
        "near_copies",
        "decision_number",
        "decided_by",
        "note",
    )
    return {
        **{name: getattr(item, name) for name in (*plain, "defect_class", "muted_by")},
        "modality": item.modality.value,
        "severity": item.severity.value,
        "first_at": rfc3339(item.first_at_s),
        "last_at": rfc3339(item.last_at_s),
        "p_value": item.p_value if math.isfinite(item.p_value) else 1.0,
        "cover": verdict_item(item.cover, None) if item.cover is not None else None,
        "reviewed": item.is_reviewed,
        "muted": item.is_hidden,
        "decision": item.decision.value if item.decision is not None else None,
        "decided_at": rfc3339(item.decided_at_s) if item.decided_at_s is not None else None,
    }


def decision_item(decision: StoredDecision) -> dict[str, Any]:
    """Return one decision as a JSON value."""
    return {
        "number": decision.number,
        "item": decision.item,
        "decision": decision.decision.value if decision.decision is not None else None,
        "defect_class": decision.defect_class,
        "note": decision.note,
        "author": decision.author,
        "at": rfc3339(decision.at_s),
        "undoes": decision.undoes,
    }
