"""Times as RFC 3339 texts, for the HTTP API, commands and exports."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.errors import DataError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORM = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def rfc3339(at_s: float) -> str:
    """Return seconds since the epoch as an RFC 3339 time in UTC with microseconds, within the years 1 to 9999."""
    try:
        moment = _EPOCH + timedelta(seconds=at_s)
    except (OverflowError, ValueError):  # a device may claim any time
        moment = datetime.max.replace(tzinfo=UTC) if at_s > 0 else datetime.min.replace(tzinfo=UTC)
    return f"{moment:%H:%M:%S.%f}".join((f"{moment.year:04}-{moment:%m-%d}T", "Z"))


def parse_rfc3339(text: str) -> float:
    """Return the seconds since the epoch of an RFC 3339 time; raises DataError for any other text."""
    if _FORM.fullmatch(text):
        try:
            return (datetime.fromisoformat(text.upper()) - _EPOCH) / timedelta(seconds=1)
        except (ValueError, OverflowError):
            pass
    raise DataError(
        f"{text[:60]!r} is not a time: write it as 2026-11-29T06:30:00Z, or with an offset such as +01:00 "
        "('+' as %2B in a URL)."
    )


def parse_moment(text: str) -> float:
    """Return the seconds since the epoch of an RFC 3339 time or of a date's start in UTC; raises DataError."""
    return parse_rfc3339(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text)


def with_rfc3339(value: Any) -> Any:
    """Return a JSON value with each member `at_s` or `..._at_s` as an RFC 3339 text named `at` or `..._at`."""
    if isinstance(value, dict):
        return dict(_member(name, item) for name, item in value.items())
    return [with_rfc3339(item) for item in value] if isinstance(value, list | tuple) else value


def _member(name: str, value: Any) -> tuple[str, Any]:
    if name != "at_s" and not name.endswith("_at_s"):
        return name, with_rfc3339(value)
    return name.removesuffix("_s"), rfc3339(value) if value is not None else None
