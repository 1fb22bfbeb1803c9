"""Columns, orders and filters of the console's table of verdicts, from the declared columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cloud.store.verdict_columns import COLUMNS, FILTER_NAMES, VerdictRecord

SPANS_S = {"15m": 900.0, "1h": 3600.0, "24h": 86_400.0, "7d": 604_800.0}
_SPAN_LABELS = {"15m": "Last 15 minutes", "1h": "Last hour", "24h": "Last 24 hours", "7d": "Last 7 days"}

ORDERS = {"": "newest first", "oldest": "oldest first", "edge": "rarest first", "fused": "rarest first"}
"""Orders of the list in an address, and in words."""
# The store keeps verdicts in the order of time, so only that order is one of all pages.
_ONE_PAGE = "Sorts the verdicts of this page: the store keeps all of them in the order of time"
_SORTS = {"judged_at_s": ("", "oldest"), "edge": ("edge", ""), "fused": ("fused", "")}


@dataclass(frozen=True, slots=True)
class TableColumn:
    """Column of the table: key in a row, heading, kind of cell and tooltip.

    `orders` are those that its heading switches between; empty where it cannot sort.
    """

    key: str
    title: str
    kind: str
    hint: str
    orders: tuple[str, ...]

    def next_order(self, order: str) -> str:
        """Return the order that a click on the heading gives while the list has `order`."""
        return self.orders[1] if order == self.orders[0] else self.orders[0]

    def direction(self, order: str) -> str:
        """Return the column's direction in `order` as `aria-sort` names it; empty if it does not order the list."""
        if order not in self.orders or (self.kind == "p_value" and not order):
            return ""
        return "descending" if not order else "ascending"


def table_columns() -> list[TableColumn]:
    """Return the columns of the table, in order."""
    columns = []
    for name, stored in COLUMNS.items():
        if (listing := stored.listing) is not None:
            key = listing.key or name
            hint = ". ".join(filter(None, [listing.hint, _ONE_PAGE if listing.kind == "p_value" else ""]))
            columns.append(TableColumn(key, listing.title, listing.kind, hint, _SORTS.get(key, ())))
    return columns


def filter_choices(device_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the drop-down filters: name, label, text for "no restriction" and (value, text) of each option."""
    choices = []
    for name in FILTER_NAMES:
        listing = COLUMNS[name].listing
        if listing is not None:
            options = [(value, value.capitalize()) for value in enum_values(name)] or [(id_, id_) for id_ in device_ids]
            choices.append(_choice(filter_name(name), listing.title, f"All {listing.plural}", options))
    return [*choices, _choice("span", "Time", "Any time", list(_SPAN_LABELS.items()))]


def filter_name(column: str) -> str:
    """Return the name of a column's filter in an address or a query of the API."""
    return column.removesuffix("_id")


def enum_values(column: str) -> tuple[str, ...]:
    """Return the values that a column can take; empty if they are not fixed."""
    kind = VerdictRecord.model_fields[column].annotation
    return tuple(kind) if isinstance(kind, type) and issubclass(kind, StrEnum) else ()


def _choice(name: str, label: str, everything: str, options: list[tuple[str, str]]) -> dict[str, Any]:
    return {"name": name, "label": label, "all": everything, "options": options}
