"""Pages of lists: bounded, keyed by their last item, with opaque cursors."""

import base64
import binascii
import hashlib
import json
import math
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query, Request

from cloud.moments import parse_rfc3339
from cloud.query_parameters import parameter_problem
from cloud.rest.problems import Problem

MAX_SIZE = 200
MAX_CURSOR_CHARACTERS = 512
NOT_IN_CURSOR = ("cursor", "size")
_VERSION = 1

Size = Annotated[int, Query(ge=1, le=MAX_SIZE, description="Largest number of items.")]
CursorText = Annotated[
    str, Query(max_length=MAX_CURSOR_CHARACTERS, description="`next` of the page before, with the same filters.")
]
TimeText = Annotated[str, Query(max_length=64, description="RFC 3339, such as 2026-11-29T06:30:00Z.")]
Name = Annotated[str, Query(max_length=512)]


def check_parameters(request: Request) -> None:
    """Refuse a query parameter that the route does not know, or that is given twice; raises Problem."""
    if problem := parameter_problem(request):
        raise Problem(422, "unknown-parameter", problem)


def time_or_none(text: str) -> float | None:
    """Return the seconds since the epoch of a query parameter, None for an empty one; raises DataError."""
    return parse_rfc3339(text) if text else None


def next_cursor(request: Request, *key: float | int | str) -> str:
    """Return the cursor of the page after the item with this key, for the list and filters of the request."""
    text = json.dumps([_VERSION, _list_of(request), *key], separators=(",", ":"), allow_nan=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(request: Request, text: str, *kinds: type) -> Sequence[Any] | None:
    """Return the key in a cursor, None for an empty text; raises Problem for one that is not of this list.

    A cursor gives no right: it is checked, not signed.
    """
    if not text:
        return None
    try:
        values = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or values[:2] != [_VERSION, _list_of(request)] or len(values) != 2 + len(kinds):
        raise _bad_cursor()
    key = values[2:]
    for value, kind in zip(key, kinds, strict=True):
        is_good = type(value) is kind
        if isinstance(value, float):
            is_good = is_good and math.isfinite(value)
        elif isinstance(value, int):
            is_good = is_good and 0 <= value < 2**63
        if not is_good:
            raise _bad_cursor()
    return key


def page(items: list[Any], following: str | None) -> dict[str, Any]:
    """Return a page as the routes answer it."""
    return {"items": items, "next": following}


def _bad_cursor() -> Problem:
    detail = "cursor: use 'next' of an earlier page, with the same filters, or leave it out for the first page."
    return Problem(422, "invalid-cursor", detail)


def _list_of(request: Request) -> str:
    """Return a digest of the path and the filters of a request."""
    filters = sorted(item for item in request.query_params.multi_items() if item[0] not in NOT_IN_CURSOR)
    return hashlib.sha256(json.dumps([request.url.path, filters]).encode()).hexdigest()[:16]
