"""Time stamps as seconds since the epoch.

Read are ISO 8601 with or without a zone, dates with the day or the month first, and numbers: seconds, milliseconds,
microseconds or nanoseconds since the epoch, told apart by their size. A time without a zone is taken as UTC.
"""

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
from numpy.typing import NDArray

MAX_SECONDS = 2.5e11  # the year 9892
UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_UNIT_BY_SIZE = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"), (0.0, "s"))  # smallest number of each: the year 1973
_EPOCH_RANGE_S = (9.4e8, 4.2e9)  # October 1999 to 2103: values of an epoch column
_HOUR_S = 3600.0
_DATE = re.compile(
    r"(\d{1,2})([./-])(\d{1,2})\2(\d{4})"
    r"(?:[ T,]+(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d+))?)?\s*([AaPp][Mm])?\s*(Z|[+-]\d{2}:?\d{2})?)?"
)
_FRACTION_COMMA = re.compile(r"(?<=:\d\d),(?=\d)")


def parse_time(text: str, dates: str = "auto") -> float:
    """Return seconds since the epoch of a time written as text.

    Args:
        text: ISO 8601, or a date such as 24.10.2025 10:15.
        dates: "day_first", "month_first", or "auto": points mean day first, and a number above 12 is a day. Or a format
            of `datetime.strptime`; times without a zone are UTC.

    Raises:
        ValueError: the text is no time, or day and month cannot be told apart.
    """
    text = text.strip()[:64]
    if "%" in dates:
        return _from_format(text, dates)
    match = _DATE.fullmatch(text)
    if match is None:
        try:
            moment = datetime.fromisoformat(_FRACTION_COMMA.sub(".", text))
        except ValueError:
            raise ValueError(f"{text[:40]!r} is not a time.") from None
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    return _from_date(match, _order_of(match, dates))


def to_seconds(value: object, unit: str = "auto", dates: str = "auto") -> float:
    """Return seconds since the epoch of a number in `unit`, or of a text. Raises ValueError for anything else.

    With a format in `dates`, a whole number is a text: 20251024101500 may be a date.
    """
    if "%" in dates and isinstance(value, (str, int)) and not isinstance(value, bool):
        return parse_time(str(value), dates)
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return parse_time(value, dates)
        value = number
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{str(value)[:40]!r} is not a time.")
    if unit == "auto":
        unit = next((name for smallest, name in _UNIT_BY_SIZE if value >= smallest), "s")
    if abs(seconds := float(value) / UNITS[unit]) > MAX_SECONDS:
        raise ValueError(f"{value} lies beyond the calendar.")
    return seconds


def parse_column(texts: Sequence[str], dates: str = "auto") -> tuple[NDArray[np.float64], str]:
    """Return the times (n,) of a column in seconds since the epoch, and a note if the order of dates was chosen.

    If no date of the column tells day and month apart, the order with the smaller longest step is taken.
    Raises ValueError for a text that is no time.
    """
    if dates != "auto" or not any(_DATE.fullmatch(text.strip()) for text in texts[:1]):
        return np.array([parse_time(text, dates) for text in texts]), ""
    readings = {order: _in_order(texts, order) for order in ("day_first", "month_first")}
    possible = {order: times for order, times in readings.items() if times is not None}
    if not possible:
        raise ValueError(f"{texts[0][:40]!r} is not a time.")
    order = min(possible, key=lambda name: _longest_step(possible[name]))
    if len(possible) == 2 and _longest_step(possible["day_first"]) == _longest_step(possible["month_first"]):
        order = "day_first"
    return possible[order], f"dates are read with the {order.removesuffix('_first')} first"


def is_epoch(values: NDArray[np.float64]) -> bool:
    """Return whether values (n,) rise like the time of a clock: epochs of this century, in one unit, never falling."""
    if len(values) < 2 or not np.isfinite(values).all() or values[0] == values[-1]:
        return False
    steps = np.diff(values)
    low, high = float(values.min()), float(values.max())
    return bool((steps >= 0).all()) and any(
        _EPOCH_RANGE_S[0] <= low / scale and high / scale <= _EPOCH_RANGE_S[1] for scale in UNITS.values()
    )


def first_step_back(times: NDArray[np.float64]) -> tuple[int, bool]:
    """Return the first position whose time is earlier than the one before (-1: none), apart from clock changes.

    A step back of one hour less a usual step is the end of daylight saving. The second result says if there is one.
    """
    steps = np.diff(times)
    back = np.flatnonzero(steps < 0)
    if not len(back):
        return -1, False
    forward = steps[steps > 0]
    usual = float(np.median(forward)) if len(forward) else 0.0
    is_change = np.abs(steps[back] + _HOUR_S - usual) <= max(0.5 * usual, 1e-6)
    if usual >= _HOUR_S or len(back) > 1 + len(times) * usual / (86400 * 300):  # at most one a year
        is_change[:] = False
    wrong = back[~is_change]
    return (int(wrong[0]) + 1 if len(wrong) else -1), bool(is_change.any())


def _order_of(match: re.Match[str], dates: str) -> str:
    first, second = int(match[1]), int(match[3])
    if dates != "auto":
        return dates
    if match[2] == "." or first > 12:
        return "day_first"
    if second > 12:
        return "month_first"
    if first == second:
        return "day_first"
    raise ValueError(f"{match[0]!r} has two readings: set table.dates to day_first or month_first.")


def _from_format(text: str, dates: str) -> float:
    try:
        moment = datetime.strptime(text, dates)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a time of the format {dates!r} in table.dates.") from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _from_date(match: re.Match[str], order: str) -> float:
    first, second, year = int(match[1]), int(match[3]), int(match[4])
    day, month = (first, second) if order == "day_first" else (second, first)
    hour, minute, seconds = int(match[5] or 0), int(match[6] or 0), int(match[7] or 0)
    if match[9]:
        hour = hour % 12 + (12 if match[9].lower() == "pm" else 0)
    zone = match[10]
    offset = timedelta(0)
    if zone and zone != "Z":
        sign = -1 if zone[0] == "-" else 1
        offset = sign * timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
    moment = datetime(year, month, day, hour, minute, seconds, tzinfo=timezone(offset))
    return moment.timestamp() + float(f"0.{match[8]}" if match[8] else 0)


def _in_order(texts: Sequence[str], order: str) -> NDArray[np.float64] | None:
    try:
        return np.array([parse_time(text, order) for text in texts])
    except ValueError:
        return None


def _longest_step(times: NDArray[np.float64]) -> float:
    return float(np.abs(np.diff(times)).max()) if len(times) > 1 else 0.0
