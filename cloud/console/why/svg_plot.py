"""Plot of a channel as SVG attributes, in a box of PLOT_WIDTH by PLOT_HEIGHT that a page stretches."""

from collections.abc import Mapping
from typing import Any

from cloud.console.words import percent_words

PLOT_WIDTH, PLOT_HEIGHT, MARGIN = 1000.0, 74.0, 6.0
MIN_SPAN = 3.0


def line(channel: Mapping[str, Any], length: int) -> str:
    """Return the path of a channel's points; a missing value breaks the line."""
    low, high = value_range(channel) or (0.0, 1.0)
    commands, is_drawing = [], False
    for time, value in channel["points"]:
        if value is None:
            is_drawing = False
            continue
        share = (value - low) / (high - low) if high > low else 0.5
        y = PLOT_HEIGHT - MARGIN - share * (PLOT_HEIGHT - 2 * MARGIN)
        commands.append(f"{'L' if is_drawing else 'M'}{_x(time, length):.1f} {y:.1f}")
        is_drawing = True
    return "".join(commands)


def spans(channel: Mapping[str, Any], length: int) -> list[tuple[str, str, str]]:
    """Return the shaded spans of a channel: left edge, width and opacity."""
    found = []
    for start, stop, level in channel["shaded"]:
        width = max(MIN_SPAN, _x(stop, length) - _x(start, length))
        found.append((f"{_x(start - 0.5, length):.1f}", f"{width:.1f}", f"{0.12 + 0.4 * level:.2f}"))
    return found


def range_words(channel: Mapping[str, Any]) -> str:
    """Return the share of a channel and the range of its values in words."""
    known = value_range(channel)
    if known is None:
        return "no values"
    values = f"{known[0]:.3g} to {known[1]:.3g}"
    share = channel["share"]
    return values if share is None else f"{percent_words(share)} of the anomaly, {values}"


def value_range(channel: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the lowest and the highest value of a channel; None without any."""
    known = [value for _, value in channel["points"] if value is not None]
    return (min(known), max(known)) if known else None


def _x(time: float, length: int) -> float:
    last = max(1, length - 1)
    return min(max(time, 0.0), last) / last * PLOT_WIDTH
