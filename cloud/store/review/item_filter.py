"""Filter of review items, and the SQL conditions that it gives."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from sqlalchemy import ColumnElement, exists, or_

from cloud.store.review.severity import Severity
from cloud.store.schema import review_items, review_marks
from cloud.store.sites import by_sites
from shared.modality import Modality


class ItemState(StrEnum):
    """State of review items, as a list chooses it."""

    LEFT = "left"
    """Neither decided by anybody nor reviewed by this person."""
    ALL = "all"
    REVIEWED = "reviewed"
    """Not left."""
    REAL = "real"
    FALSE_ALARM = "false_alarm"
    UNSURE = "unsure"


@dataclass(frozen=True, slots=True)
class ItemFilter:
    """Filter of the items that a person sees; None and "" do not restrict.

    `actor`: the person. `sites`: the only ones that the person may see; none: all. `text` may be anywhere in the ids of
    device and source and in the origin of the cover. `odds`: only items at least as rare as 1 in `odds`. `since_s` and
    `until_s` are about the first capture.
    """

    actor: str = ""
    sites: tuple[str, ...] = ()
    severity: Severity | None = None
    state: ItemState = ItemState.LEFT
    site: str = ""
    device_id: str = ""
    modality: Modality | None = None
    text: str = ""
    since_s: float | None = None
    until_s: float | None = None
    odds: float | None = None

    def anywhere(self) -> "ItemFilter":
        """Return the filter without tab, site and device."""
        return replace(self, severity=None, site="", device_id="")


IS_OPEN = review_items.c.decision.is_(None)


def is_marked(actor: str) -> ColumnElement[bool]:
    """Return whether a person has marked the item as reviewed."""
    return exists().where(review_marks.c.item == review_items.c.number, review_marks.c.actor == actor)


def conditions(wanted: ItemFilter, *, with_state: bool = True) -> list[ColumnElement[bool]]:
    """Return the conditions on rows of review_items."""
    items = review_items.c
    found: list[ColumnElement[bool]] = list(_state(wanted)) if with_state else []
    if wanted.severity is not None:
        found.append(items.severity == wanted.severity.value)
    if wanted.device_id:
        found.append(items.device_id == wanted.device_id)
    if wanted.site:
        found += by_sites(items.device_id, [wanted.site])
    found += by_sites(items.device_id, wanted.sites)
    if wanted.modality is not None:
        found.append(items.modality == wanted.modality.value)
    if wanted.since_s is not None:
        found.append(items.first_at_s >= wanted.since_s)
    if wanted.until_s is not None:
        found.append(items.first_at_s < wanted.until_s)
    if wanted.odds is not None:
        found.append(items.p_value <= 1 / wanted.odds)
    if wanted.text:
        found.append(_matches(wanted.text))
    return found


def _state(wanted: ItemFilter) -> Sequence[ColumnElement[bool]]:
    match wanted.state:
        case ItemState.ALL:
            return ()
        case ItemState.LEFT:
            return (IS_OPEN, ~is_marked(wanted.actor))
        case ItemState.REVIEWED:
            return (or_(~IS_OPEN, is_marked(wanted.actor)),)
    return (review_items.c.decision == wanted.state.value,)


def _matches(text: str) -> ColumnElement[bool]:
    columns = (review_items.c.device_id, review_items.c.source_id, review_items.c.origin)
    return or_(*(column.icontains(text, autoescape=True) for column in columns))
