"""Place of a value beside its normal range, as figures and in words."""

import math
from dataclasses import dataclass
from enum import StrEnum

from shared.preprocessing import ChannelRanges

NEAR_SHARE = 0.001  # of the range: a value this close outside it is within it


class Side(StrEnum):
    """Where a value lies relative to its normal range."""

    BELOW = "below"
    WITHIN = "within"
    ABOVE = "above"
    MISSING = "missing"
    UNKNOWN = "unknown"
    """There is no range."""


@dataclass(frozen=True, slots=True)
class NormalRange:
    """Normal range of one channel: 98 % of the training readings lie in it. `scale`: their standard deviation."""

    low: float
    high: float
    scale: float

    @property
    def words(self) -> str:
        """Range such as "88 to 91"."""
        first, last = figure(self.low, self.width), figure(self.high, self.width)
        return first if first == last else f"{first} to {last}"

    @property
    def width(self) -> float:
        """Distance between both ends."""
        return self.high - self.low

    def side(self, value: float) -> Side:
        """Return where a value lies."""
        slack = NEAR_SHARE * max(self.width, abs(self.scale), 1e-12)
        if not math.isfinite(value):
            return Side.MISSING if math.isnan(value) else (Side.ABOVE if value > 0 else Side.BELOW)
        if value < self.low - slack:
            return Side.BELOW
        return Side.ABOVE if value > self.high + slack else Side.WITHIN

    def deviations(self, value: float) -> float:
        """Return the distance of a value from the range in standard deviations; 0 within it."""
        distance = max(self.low - value, value - self.high, 0.0)
        return distance / self.scale if self.scale > 0 else 0.0


def normal_ranges(ranges: ChannelRanges | None) -> dict[str, NormalRange]:
    """Return the normal range of each channel by name."""
    if ranges is None:
        return {}
    columns = zip(ranges.channels, ranges.low, ranges.high, ranges.scale, strict=True)
    return {name: NormalRange(float(low), float(high), float(scale)) for name, low, high, scale in columns}


def figure(value: float, width: float = 0.0) -> str:
    """Return a reading with enough digits to compare it with a range of this width, without needless ones."""
    if not math.isfinite(value):
        return "missing" if math.isnan(value) else ("infinite" if value > 0 else "minus infinite")
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    fine = math.floor(math.log10(width)) - 2 if width > 0 and math.isfinite(width) else size - 2
    if size < fine - 3 and width > 0:
        return "0"  # far below the range: an error of rounding
    digits = min(max(size - fine + 1, 3), 7)
    text = f"{value:.{digits}g}"
    if "e" in text and -5 < size < 7:
        return f"{float(text):.{max(0, digits - 1 - size)}f}"
    return text


def standing_words(name: str, value: float, normal: NormalRange | None) -> str:
    """Return where a value lies in one sentence part, such as "Temperature 79.65 is too low: normal is 88 to 91"."""
    if normal is None:
        return f"{name} is {figure(value)}; its normal range is unknown"
    side, text = normal.side(value), figure(value, normal.width)
    if side is Side.MISSING:
        return f"{name} is missing; normal is {normal.words}"
    if side is Side.WITHIN:
        return f"{name} {text} is within its normal range of {normal.words}"
    return f"{name} {text} is too {'low' if side is Side.BELOW else 'high'}: normal is {normal.words}"
