"""State of the list of devices in its address: filters, order and place."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self
from urllib.parse import urlencode

from cloud.device_health import HEALTH_ORDER
from cloud.store.fleet_list import ORDERS, FleetQuery

DEVICES_ON_PAGE = 100
MAX_TEXT, MAX_PAGES = 64, 10_000
_ASCENDING_FIRST = ("", "device", "site", "group", "certificate", "seen")


@dataclass(frozen=True, slots=True)
class FleetAddress:
    """State of one page of the list; "" does not restrict, and "" as `sort` is by health."""

    health: str = ""
    site: str = ""
    group: str = ""
    text: str = ""
    sort: str = ""
    page: int = 1

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> Self:
        """Return the state of an address; unknown values become ""."""
        health, sort = values.get("health", ""), values.get("sort", "")
        number = values.get("page", "")
        page = int(number) if number.isdecimal() and number.isascii() and len(number) <= 5 else 1
        return cls(
            health=health if health in HEALTH_ORDER else "",
            site=values.get("site", "")[:MAX_TEXT],
            group=values.get("group", "")[:MAX_TEXT],
            text=values.get("text", "").replace("\0", "")[:MAX_TEXT],
            sort=sort if sort.removeprefix("-") in ORDERS else "",
            page=min(max(page, 1), MAX_PAGES),
        )

    @property
    def filters(self) -> dict[str, str]:
        """Filters that restrict."""
        return {name: value for name in ("health", "site", "group", "text") if (value := getattr(self, name))}

    def to_query(self) -> FleetQuery:
        """Return the query for the store."""
        return FleetQuery(
            **self.filters,
            order=self.sort.removeprefix("-") or "health",
            is_descending=self.sort.startswith("-"),
            skip=(self.page - 1) * DEVICES_ON_PAGE,
            size=DEVICES_ON_PAGE,
        )

    def address(self, **changes: Any) -> str:
        """Return the address of the list with changes; any of them leads to its first page."""
        changed = replace(self, **({"page": 1} | changes))
        values = {field.name: getattr(changed, field.name) for field in fields(changed)}
        given = {name: value for name, value in values.items() if value and (name, value) != ("page", 1)}
        return f"/devices?{urlencode(given)}" if given else "/devices"

    def sorted_by(self, order: str) -> str:
        """Return the address that the heading of an order leads to: the other direction if it is chosen already."""
        first, second = (order, f"-{order}") if order in _ASCENDING_FIRST else (f"-{order}", order)
        return self.address(sort="" if not order else second if self.sort == first else first)

    def direction(self, order: str) -> str:
        """Return the direction of an order as `aria-sort` names it; empty for one that is not chosen."""
        if self.sort.removeprefix("-") != order:
            return ""
        return "descending" if self.sort.startswith("-") else "ascending"
