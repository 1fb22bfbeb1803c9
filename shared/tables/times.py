"""Time stamps as seconds since the epoch.

Read are ISO 8601 with or without a zone, dates with the day or the month first, names of months, `AM` and `PM`, and
times of day without a date. Numbers are seconds, milliseconds, microseconds or nanoseconds since the epoch, told apart
by their size. Any other form is read with a `strptime` format. A time without a zone is taken as UTC.
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
_HOUR_S, _DAY_S = 3600.0, 86400.0
# Hours east of Greenwich: RFC 5322, section 4.3, and the European zones.
_ZONE_HOURS = {
    "Z": 0, "UTC": 0, "GMT": 0, "EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7,
    "WET": 0, "WEST": 1, "CET": 1, "CEST": 2, "EET": 2, "EEST": 3,
}  # fmt: skip
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_CLOCK = (
    r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d+))?)?"
    r"(?:\s*(?P<half>[AaPp])\.?[Mm]\.?)?"
)
_END = rf"(?:[ T,]+{_CLOCK}\s*(?P<zone>[A-Z]{{1,4}}|[+-]\d{{2}}(?::?\d{{2}})?)?(?:\[[\w/+-]+\])?)?"
_WEEKDAY = r"(?:[A-Za-z]{3,9},?\s+)?"
_MONTH = r"(?P<month_name>[A-Za-z]{3,9})\.?"
_DATE = re.compile(rf"(?P<first>\d{{1,2}})(?P<mark>[./-])(?P<second_part>\d{{1,2}})(?P=mark)(?P<year>\d{{4}}){_END}")
_NAMED = (
    re.compile(rf"(?P<year>\d{{4}})(?P<mark>[./-])(?P<month>\d{{1,2}})(?P=mark)(?P<day>\d{{1,2}}){_END}"),
    re.compile(rf"{_WEEKDAY}(?P<day>\d{{1,2}})[ .-]+{_MONTH}[ ,-]+(?P<year>\d{{4}}){_END}"),
    re.compile(rf"{_WEEKDAY}{_MONTH}[ -]+(?P<day>\d{{1,2}}),?[ -]+(?P<year>\d{{4}}){_END}"),
)
_TIME_OF_DAY = re.compile(_CLOCK)
_FRACTION_COMMA = re.compile(r"(?<=:\d\d),(?=\d)")


def parse_time(text: str, dates: str = "auto") -> float:
    """Return seconds since the epoch of a time written as text.

    Args:
        text: ISO 8601, or a date such as 24.10.2025 10:15 or 24 Oct 2025 10:15 AM.
        dates: "day_first", "month_first", or "auto": points mean day first, and a number above 12 is a day. Or a format
            of `datetime.strptime`; times without a zone are UTC.

    Raises:
        ValueError: the text is no time, or day and month cannot be told apart.
    """
    text = text.strip()[:64]
    if "%" in dates:
        try:
            return _as_utc(datetime.strptime(text, dates)).timestamp()
        except ValueError:
            raise ValueError(f"{text[:40]!r} is not a time of the format {dates!r} in table.dates.") from None
    if match := _DATE.fullmatch(text):
        first, second = int(match["first"]), int(match["second_part"])
        day, month = (first, second) if _order_of(match, dates) == "day_first" else (second, first)
        return _moment(match, month, day)
    try:
        return _as_utc(datetime.fromisoformat(_FRACTION_COMMA.sub(".", text))).timestamp()
    except ValueError:
        pass
    for pattern in _NAMED:
        if match := pattern.fullmatch(text):
            return _moment(match, _month_of(match.groupdict()), int(match["day"]))
    raise ValueError(f"{text[:40]!r} is not a time.")


def is_time_of_day(text: str) -> bool:
    """Return whether a text is a time of day without a date, such as 10:15 or 10:15:30.5 PM."""
    return _TIME_OF_DAY.fullmatch(text.strip()) is not None


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
    """Return the times (n,) of a column in seconds since the epoch, and a note if a reading was chosen.

    If no date of the column tells day and month apart, the order with the smaller longest step is taken. Times of day
    without a date count from the first day; a step back of more than half a day begins the next one.
    Raises ValueError for a text that is no time.
    """
    first = texts[0].strip() if texts else ""
    if "%" not in dates and is_time_of_day(first):
        return _times_of_day(texts), "times of day without a date: a step back of more than 12 h begins the next day"
    if dates != "auto" or not _DATE.fullmatch(first):
        return np.array([parse_time(text, dates) for text in texts]), ""
    readings = {order: _in_order(texts, order) for order in ("day_first", "month_first")}
    possible = {order: times for order, times in readings.items() if times is not None}
    if not possible:
        raise ValueError(f"{first[:40]!r} is not a time, or not all times have its form.")
    order = min(possible, key=lambda name: _longest_step(possible[name]))
    if len(possible) == 2 and _longest_step(possible["day_first"]) == _longest_step(possible["month_first"]):
        order = "day_first"
    return possible[order], f"dates are read with the {order.removesuffix('_first')} first"


def is_epoch(values: NDArray[np.float64]) -> bool:
    """Return whether values (n,) rise like the time of a clock: epochs of this century, in one unit, never falling."""
    return epoch_units_per_s(values) > 0


def epoch_units_per_s(values: NDArray[np.float64]) -> float:
    """Return how many units of values (n,) make a second if they rise like the time of a clock, else 0."""
    if len(values) < 2 or not np.isfinite(values).all() or values[0] == values[-1] or (np.diff(values) < 0).any():
        return 0.0
    low, high = float(values.min()), float(values.max())
    fitting = (
        scale for scale in UNITS.values() if _EPOCH_RANGE_S[0] <= low / scale and high / scale <= _EPOCH_RANGE_S[1]
    )
    return next(fitting, 0.0)


def usual_step(times: NDArray[np.float64]) -> float:
    """Return the median step between times (n,) in order, in their unit; 0 without two different times.

    Rows that share the time stamp of a coarse clock divide its step among them.
    """
    steps = np.diff(times)
    forward = steps[steps > 0]
    return float(np.median(forward) * len(forward) / np.count_nonzero(steps >= 0)) if len(forward) else 0.0


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
    first, second = int(match["first"]), int(match["second_part"])
    if dates != "auto":
        return dates
    if match["mark"] == "." or first > 12:
        return "day_first"
    if second > 12:
        return "month_first"
    if first == second:
        return "day_first"
    raise ValueError(f"{match[0]!r} has two readings: set table.dates to day_first or month_first.")


def _month_of(parts: dict[str, str]) -> int:
    """Return the number of a month. Raises ValueError for a name that is not English."""
    if "month" in parts:
        return int(parts["month"])
    name = parts["month_name"]
    if name[:3].lower() not in _MONTHS:
        raise ValueError(f"{name!r} is not the English name of a month: set a format in table.dates.")
    return _MONTHS.index(name[:3].lower()) + 1


def _moment(match: re.Match[str], month: int, day: int) -> float:
    """Return the seconds of a date with the time of day and the zone in `match`."""
    offset_s = _zone_offset_s(match["zone"] or "Z")
    seconds = _seconds_of_day(match) if match["hour"] else 0.0
    return datetime(int(match["year"]), month, day, tzinfo=timezone(timedelta(seconds=offset_s))).timestamp() + seconds


def _seconds_of_day(match: re.Match[str]) -> float:
    """Return seconds since midnight; 24:00 is the end of the day. Raises ValueError beyond it."""
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"] or 0)
    if match["half"]:
        if not 1 <= hour <= 12:
            raise ValueError(f"{match[0]!r} is not a time.")
        hour = hour % 12 + (12 if match["half"] in "Pp" else 0)
    seconds = 3600 * hour + 60 * minute + second + float(f"0.{match['fraction'] or 0}")
    if minute > 59 or second > 60 or seconds > _DAY_S:
        raise ValueError(f"{match[0]!r} is not a time.")
    return seconds


def _zone_offset_s(zone: str) -> int:
    """Return seconds east of Greenwich. Raises ValueError for an unknown abbreviation."""
    if zone in _ZONE_HOURS:
        return 3600 * _ZONE_HOURS[zone]
    if zone[0] not in "+-":
        raise ValueError(f"the zone {zone!r} is not known: write an offset such as +02:00.")
    sign = -1 if zone[0] == "-" else 1
    return sign * (3600 * int(zone[1:3]) + (60 * int(zone[-2:]) if len(zone) > 3 else 0))


def _times_of_day(texts: Sequence[str]) -> NDArray[np.float64]:
    matches = [_TIME_OF_DAY.fullmatch(text.strip()) for text in texts]
    wrong = next((text for text, match in zip(texts, matches, strict=True) if match is None), None)
    if wrong is not None:
        raise ValueError(f"{wrong[:40]!r} is not a time of day.")
    seconds = np.array([_seconds_of_day(match) for match in matches if match is not None])
    days = np.cumsum(np.diff(seconds, prepend=seconds[:1]) < -_DAY_S / 2)
    return np.asarray(seconds + _DAY_S * days, dtype=np.float64)


def _as_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _in_order(texts: Sequence[str], order: str) -> NDArray[np.float64] | None:
    try:
        return np.array([parse_time(text, order) for text in texts])
    except ValueError:
        return None


def _longest_step(times: NDArray[np.float64]) -> float:
    return float(np.abs(np.diff(times)).max()) if len(times) > 1 else 0.0
