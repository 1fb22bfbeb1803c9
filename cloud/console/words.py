"""Figures, times and tables of the pages in words."""

from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import quote

from cloud.words import NO_FIGURE, SPACE


def percent_words(share: float | None) -> str:
    """Return a share in [0, 1] in percent; a dash if it is missing."""
    if share is None:
        return NO_FIGURE
    return f"{100 * share:.{1 if share < 0.0995 else 0}f}{SPACE}%"


def exact_time(at_s: float) -> str:
    """Return a time in UTC to the millisecond."""
    return _text(at_s, lambda at: at.isoformat(timespec="milliseconds").replace("+00:00", "Z"))


def time_of_day(at_s: float) -> str:
    """Return the time of day in UTC, which a script replaces by that of the browser's time zone."""
    return _text(at_s, lambda at: f"{at:%H:%M:%S}")


def moment(at_s: float) -> str:
    """Return a time in UTC to the second."""
    return _text(at_s, lambda at: f"{at:%Y-%m-%d %H:%M:%S} UTC")


def quoted(text: str) -> str:
    """Return a text as a part of an address."""
    return quote(text, safe="")


def _text(at_s: float, write: Callable[[datetime], str]) -> str:
    """Return a time as text; the number itself where no calendar has it, as a wrong clock may give it."""
    try:
        return write(datetime.fromtimestamp(at_s, UTC))
    except (ValueError, OverflowError, OSError):
        return f"{at_s:g} s"
