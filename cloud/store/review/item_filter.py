"""Filter of review items, and the SQL conditions that it gives."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from sqlalchemy import ColumnElement, and_, exists, or_

from cloud.store.defect_classes import has_class
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
    `until_s` are about the first capture. `defect_class` is the name of the decision's class. Items that a mute hides
    are listed with `is_muted`, and only then.
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
    defect_class: str = ""
    is_muted: bool = False

    def anywhere(self) -> "ItemFilter":
        """Return the filter without tab, site, device and class."""
        return replace(self, severity=None, site="", device_id="", defect_class="", is_muted=False)


IS_SHOWN = review_items.c.hidden_by.is_(None)
IS_OPEN = and_(review_items.c.decision.is_(None), IS_SHOWN)


def is_marked(actor: str) -> ColumnElement[bool]:
    """Return whether a person has marked the item as reviewed."""
    return exists().where(review_marks.c.item == review_items.c.number, review_marks.c.actor == actor)


def conditions(wanted: ItemFilter, *, with_state: bool = True) -> list[ColumnElement[bool]]:
    """Return the conditions on rows of review_items."""
    items = review_items.c
    found: list[ColumnElement[bool]] = list(_state(wanted)) if with_state else []
    if wanted.is_muted:
        found.append(items.hidden_by.is_not(None))
    else:
        found.append(IS_SHOWN)
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
    if wanted.defect_class:
        found.append(has_class(items.defect_class, wanted.defect_class))
    if wanted.text:
        found.append(_matches(wanted.text))
    return found


def _state(wanted: ItemFilter) -> Sequence[ColumnElement[bool]]:
    match wanted.state:
        case ItemState.ALL:
            return ()
        case ItemState.LEFT:
            return (review_items.c.decision.is_(None), ~is_marked(wanted.actor))
        case ItemState.REVIEWED:
            return (or_(review_items.c.decision.is_not(None), is_marked(wanted.actor)),)
    return (review_items.c.decision == wanted.state.value,)


def _matches(text: str) -> ColumnElement[bool]:
    columns = (review_items.c.device_id, review_items.c.source_id, review_items.c.origin)
    return or_(*(column.icontains(text, autoescape=True) for column in columns))
