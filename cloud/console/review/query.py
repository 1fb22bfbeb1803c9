"""State of the review page in its address: tab, filters, order, place and the opened item."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self
from urllib.parse import urlencode

from cloud.accounts.identity import SignedIn
from cloud.store.review.item_filter import ItemFilter, ItemState
from cloud.store.review.items import ItemKey, ItemOrder
from cloud.store.review.severity import Severity
from shared.modality import Modality

MAX_TEXT = 200
FILTERS = ("site", "device", "modality", "state", "defect_class", "text", "odds", "since", "until")
MUTED = "muted"
ODDS = (1_000, 10_000, 100_000, 1_000_000)
_MAX_ITEM = 2**63


@dataclass(frozen=True, slots=True)
class ReviewQuery:
    """State of the page; "" does not restrict, and is the default of tab, state and sort.

    `since` and `until` are seconds since the epoch as texts, `odds` is a number as a text. `after` is the place of the
    page before, `open` the number of the opened item.
    """

    tab: str = ""
    site: str = ""
    device: str = ""
    modality: str = ""
    state: str = ""
    defect_class: str = ""
    text: str = ""
    odds: str = ""
    since: str = ""
    until: str = ""
    sort: str = ""
    after: str = ""
    open: str = ""

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> Self:
        """Return the query of an address; unknown values become ""."""
        chosen = {name: values.get(name, "")[:MAX_TEXT] for name in cls.__slots__}
        known: dict[str, frozenset[str]] = {
            "tab": (frozenset(Severity) - {Severity.ALARM}) | {MUTED},
            "modality": frozenset(Modality),
            "state": frozenset(ItemState) - {ItemState.LEFT},
            "sort": frozenset(ItemOrder) - {ItemOrder.NEWEST},
            "odds": frozenset(map(str, ODDS)),
        }
        for name, allowed in known.items():
            if chosen[name] not in allowed:
                chosen[name] = ""
        for name in ("since", "until"):
            chosen[name] = chosen[name] if _seconds(chosen[name]) is not None else ""
        if key_in(chosen["after"]) is None:
            chosen["after"] = ""
        if _item(chosen["open"]) is None:
            chosen["open"] = ""
        return cls(**chosen)

    @property
    def is_muted(self) -> bool:
        """Whether the tab shows the items that mutes hide."""
        return self.tab == MUTED

    @property
    def severity(self) -> Severity | None:
        """Severity of the tab; None for that of hidden items."""
        if self.is_muted:
            return None
        return Severity(self.tab) if self.tab else Severity.ALARM

    @property
    def order(self) -> ItemOrder:
        """Order of the list."""
        return ItemOrder(self.sort) if self.sort else ItemOrder.NEWEST

    @property
    def opened(self) -> int | None:
        """Number of the opened item."""
        return _item(self.open)

    @property
    def filters(self) -> dict[str, str]:
        """Filters that restrict."""
        return {name: getattr(self, name) for name in FILTERS if getattr(self, name)}

    def to_filter(self, person: SignedIn) -> ItemFilter:
        """Return the filter for the store, restricted to the sites of the person."""
        return ItemFilter(
            actor=person.actor if person.name else "",
            sites=person.sites,
            severity=self.severity,
            state=self._state(),
            defect_class=self.defect_class,
            is_muted=self.is_muted,
            site=self.site,
            device_id=self.device,
            modality=Modality(self.modality) if self.modality else None,
            text=self.text.strip(),
            since_s=_seconds(self.since),
            until_s=_seconds(self.until),
            odds=float(self.odds) if self.odds else None,
        )

    def _state(self) -> ItemState:
        if self.state:
            return ItemState(self.state)
        return ItemState.ALL if self.defect_class else ItemState.LEFT

    def address(self, **changes: Any) -> str:
        """Return the address of this page with changes; the first page of the list unless `after` is given."""
        changed = replace(self, **({"after": "", "open": ""} | changes))
        given = {field.name: value for field in fields(changed) if (value := getattr(changed, field.name))}
        return f"/?{urlencode(given)}" if given else "/"


def key_in(text: str) -> ItemKey | None:
    """Return the place in an address; None for any other text."""
    p_value, _, number = text.partition(":")
    try:
        key = ItemKey(float(p_value), int(number))
    except ValueError:
        return None
    return key if math.isfinite(key.p_value) and 0 <= key.number < _MAX_ITEM else None


def key_text(key: ItemKey | None) -> str:
    """Return a place as in an address, "" for none."""
    return f"{key.p_value!r}:{key.number}" if key is not None else ""


def _seconds(text: str) -> float | None:
    try:
        found = float(text) if text else math.nan
    except ValueError:
        return None
    return found if abs(found) < 1e11 else None


def _item(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and 0 < int(text) < _MAX_ITEM else None
