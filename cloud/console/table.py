"""Columns and filters of the console's table of verdicts, from the declared columns."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from cloud.store.verdict_columns import COLUMNS, FILTER_NAMES, VerdictRecord

SPANS_S = {"15m": 900.0, "1h": 3600.0, "24h": 86_400.0, "7d": 604_800.0}
_SPAN_LABELS = {"15m": "Last 15 minutes", "1h": "Last hour", "24h": "Last 24 hours", "7d": "Last 7 days"}


def table_columns() -> list[dict[str, str]]:
    """Return the columns of the table, in order: key in a row, heading, kind of cell and tooltip."""
    return [
        {"key": stored.listing.key or name, "title": stored.listing.title, "kind": stored.listing.kind}
        | {"hint": stored.listing.hint}
        for name, stored in COLUMNS.items()
        if stored.listing is not None
    ]


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
