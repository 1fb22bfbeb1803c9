"""Audit log with filters, a page at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode

from cloud.console.words import moment
from cloud.moments import parse_moment
from cloud.store import Store
from cloud.store.audit import AuditAction, AuditEntry, AuditFilter, audit_page
from shared.errors import DataError

ENTRIES_ON_PAGE = 100
MAX_TEXT = 256
NAMES = ("actor", "action", "subject", "from", "to")


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Filters and place of the log in an address; `problem` says why a time was left out."""

    values: tuple[tuple[str, str], ...]
    wanted: AuditFilter
    before: int | None
    problem: str

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> Self:
        """Return the query of an address; parts that cannot be read are left out."""
        values = {name: given.get(name, "").strip().replace("\0", "")[:MAX_TEXT] for name in NAMES}
        if values["action"] not in list(AuditAction):
            values["action"] = ""
        problem, times = "", {}
        for name in ("from", "to"):
            try:
                times[name] = parse_moment(values[name]) if values[name] else None
            except DataError as error:
                times[name], problem = None, str(error)
        text = given.get("before", "")
        before = int(text) if text.isdecimal() and text.isascii() and len(text) < 18 else None
        wanted = AuditFilter(values["actor"], values["action"], values["subject"], times["from"], times["to"])
        return cls(tuple(values.items()), wanted, before, problem)

    def address(self, **changes: str | int) -> str:
        """Return the address of the log with changes."""
        given = {name: value for name, value in (dict(self.values) | changes).items() if value}
        return f"/system/audit?{urlencode(given)}" if given else "/system/audit"


async def read_audit(store: Store, query: AuditQuery) -> dict[str, Any]:
    """Return the values of the page."""
    async with store.reading() as connection:
        found = await audit_page(connection, query.wanted, before=query.before, size=ENTRIES_ON_PAGE + 1)
    shown = found[:ENTRIES_ON_PAGE]
    return {
        "query": query,
        "chosen": dict(query.values),
        "entries": [(entry, details_words(entry)) for entry in shown],
        "older": query.address(before=shown[-1].number) if len(found) > ENTRIES_ON_PAGE else "",
        "newest": query.address() if query.before is not None else "",
        "actions": [action.value for action in AuditAction],
    }


def details_words(entry: AuditEntry) -> str:
    """Return the details of an entry on one line."""
    return _members(entry.details)


def _members(details: Mapping[str, Any]) -> str:
    return ", ".join(_member(name, value) for name, value in details.items())


def _member(name: str, value: Any) -> str:
    """Return a detail in words; the unit of its name follows its value."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and name.endswith(("_at_s", "since_s", "until_s")):
        return f"{_spaced(name.removesuffix('_s'))} {moment(value)}"
    if is_number and name.endswith("_s") and not name.endswith("_per_s"):
        return f"{_spaced(name.removesuffix('_s'))} {_value(value)} s"
    return f"{_spaced(name)} {_value(value)}"


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return f"({_members(value)})"
    if isinstance(value, list):
        return " ".join(map(_value, value)) or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:.15g}"
    text = str(value)
    return f'"{text}"' if set(text) & set(',()"') else text  # a text that people wrote must not look like details
