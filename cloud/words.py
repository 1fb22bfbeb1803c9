"""Figures as text for operators."""

import math
from datetime import UTC, datetime

from shared.calibration import MIN_P_VALUE

EXTRAPOLATED = "†"
THIN_SPACE = "\N{NARROW NO-BREAK SPACE}"  # between groups of digits
SPACE = "\N{NO-BREAK SPACE}"  # between a figure and its unit
NO_FIGURE = "\N{EN DASH}"
_LARGE = ((1e9, "billion"), (1e6, "million"))
_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")


def p_value_words(p_value: float, extrapolated: bool) -> str:
    """Return how often a normal sample is at least this odd: "1 in 2 400", with a dagger if extrapolated."""
    if not math.isfinite(p_value) or p_value < 0:
        return NO_FIGURE
    mark = EXTRAPOLATED if extrapolated else ""
    if p_value <= MIN_P_VALUE:
        return f"under{SPACE}1{SPACE}in{SPACE}10¹²{mark}"
    if p_value >= 0.1:
        return f"{round(p_value * 100)}{SPACE}in{SPACE}100{mark}"
    return f"1{SPACE}in{SPACE}{_rounded(1 / p_value)}{mark}"


def p_value_exact(p_value: float, extrapolated: bool) -> str:
    """Return the p-value itself, for a tooltip."""
    tail = ", extrapolated from the fitted tail" if extrapolated else ""
    return f"p = {p_value:.3g}{tail}"


def count_words(count: int) -> str:
    """Return a count in groups of three digits."""
    return f"{count:,}".replace(",", THIN_SPACE)


def share_words(part: float, whole: float) -> str:
    """Return a share in percent; a dash if `whole` is 0."""
    if whole <= 0:
        return NO_FIGURE
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return f"under{SPACE}0.1{SPACE}%"
    return f"{percent:.1f}{SPACE}%"


def bytes_words(size: float) -> str:
    """Return a size in decimal units."""
    for unit in _SIZES:
        if size < 1000 or unit == _SIZES[-1]:
            break
        size /= 1000
    digits = 0 if unit == "B" or size >= 100 else 1
    return f"{size:.{digits}f}{SPACE}{unit}"


def duration_words(seconds: float) -> str:
    """Return a duration in a fitting unit: "84 ms", "2.4 s", "3 min", "5 h", "12 d"."""
    if not math.isfinite(seconds):
        return NO_FIGURE
    sign, seconds = ("\N{MINUS SIGN}" if seconds <= -0.0005 else ""), abs(seconds)
    if seconds < 0.9995:
        text = f"{seconds * 1000:.0f}{SPACE}ms"
    elif seconds < 9.95:
        text = f"{seconds:.1f}{SPACE}s"
    elif seconds < 120:
        text = f"{seconds:.0f}{SPACE}s"
    elif seconds < 7200:
        text = f"{seconds / 60:.0f}{SPACE}min"
    elif seconds < 172_800:
        text = f"{seconds / 3600:.0f}{SPACE}h"
    else:
        text = f"{seconds / 86_400:.0f}{SPACE}d"
    return sign + text


def moment_words(at_s: float) -> str:
    """Return seconds since the epoch as a time in UTC, to the second."""
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S} UTC"


def number_words(value: float | None) -> str:
    """Return a value with five significant digits; a dash if it is missing."""
    if value is None or not math.isfinite(value):
        return NO_FIGURE
    return f"{value:.5g}"


def _rounded(count: float) -> str:
    """Return a count to two digits, in words above a million."""
    magnitude = 10 ** max(math.floor(math.log10(count)) - 1, 0)
    count = round(count / magnitude) * magnitude
    for size, name in _LARGE:
        if count >= size:
            number = f"{count / size:.0f}" if count >= 10 * size else f"{count / size:.1f}".removesuffix(".0")
            return f"{number}{SPACE}{name}"
    return count_words(round(count))
