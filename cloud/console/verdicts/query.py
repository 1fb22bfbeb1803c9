"""State of the list in its address: filters, order, position and the opened verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self
from urllib.parse import urlencode

from cloud.console.verdicts.table import ORDERS, SPANS_S
from cloud.store.verdict_keys import VerdictFilter, VerdictKey
from shared.errors import DataError
from shared.modality import Modality
from shared.samples import Decision, Route

MAX_TEXT = 200
_CHOICES: Mapping[str, frozenset[str]] = {
    "modality": frozenset(Modality),
    "decision": frozenset(Decision),
    "route": frozenset(Route),
    "span": frozenset(SPANS_S),
    "sort": frozenset(ORDERS),
}
FILTERS = ("device", "modality", "route", "decision", "span", "text")


@dataclass(frozen=True, slots=True)
class ListQuery:
    """State of one page of the list; "" does not restrict. The list is at its top without `before` and `after`."""

    device: str = ""
    modality: str = ""
    route: str = ""
    decision: str = ""
    span: str = ""
    text: str = ""
    sort: str = ""
    before: VerdictKey | None = None
    after: VerdictKey | None = None

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> Self:
        """Return the query of an address; unknown values become ""."""
        chosen = {name: values.get(name, "") for name in _CHOICES}
        before, after = (key_in(values.get(name, "")) for name in ("before", "after"))
        return cls(
            **{name: value for name, value in chosen.items() if value in _CHOICES[name]},
            device=values.get("device", "")[:MAX_TEXT],
            text=values.get("text", "")[:MAX_TEXT],
            before=before,
            after=None if before is not None else after,
        )

    @property
    def is_top(self) -> bool:
        """Whether the page is the first one of its order."""
        return self.before is None and self.after is None

    @property
    def is_oldest_first(self) -> bool:
        """Whether the list begins with the oldest verdict."""
        return self.sort == "oldest"

    @property
    def follows(self) -> bool:
        """Whether new verdicts appear on this page."""
        return self.is_top and not self.is_oldest_first

    @property
    def filters(self) -> dict[str, str]:
        """Filters that restrict."""
        return {name: getattr(self, name) for name in FILTERS if getattr(self, name)}

    def to_filter(self, now_s: float, sites: tuple[str, ...] = ()) -> VerdictFilter:
        """Return the filter for the store, of the devices of these sites."""
        return VerdictFilter(
            device_id=self.device,
            modality=Modality(self.modality) if self.modality else None,
            decision=Decision(self.decision) if self.decision else None,
            route=Route(self.route) if self.route else None,
            text=self.text.strip(),
            since_s=now_s - SPANS_S[self.span] if self.span else None,
            sites=sites,
        )

    def address(self, **changes: Any) -> str:
        """Return the address of this page with changes."""
        changed = replace(self, **changes)
        values = {field.name: str(getattr(changed, field.name) or "") for field in fields(changed)}
        given = {name: value for name, value in values.items() if value}
        return f"/verdicts?{urlencode(given)}" if given else "/verdicts"

    def top(self) -> Self:
        """Return the first page of the same list."""
        return replace(self, before=None, after=None)


def key_in(text: str) -> VerdictKey | None:
    """Return the key in an address; None for any other text."""
    try:
        return VerdictKey.parse(text) if text else None
    except DataError:
        return None
