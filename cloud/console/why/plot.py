"""Plot of the channels of a window over the surrounding time, as figures and as SVG attributes.

A channel is a box of WIDTH by HEIGHT units that the page stretches, with an axis beside it that is not stretched. Its
y axis holds the normal range and all readings, so that a quiet window looks quiet.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cloud.console.why.traces import MAX_COLUMNS, shaded, thinned
from cloud.evidence.series import Channel, SeriesPlot, channel_words, side_of
from cloud.evidence.standing import figure

WIDTH, HEIGHT, MARGIN = 1000.0, 92.0, 7.0
MIN_SPAN = 3.0
EXPECTED_ROOM = 0.5  # by which expected values may widen the y axis, in halves of it
TICKS = 5
MIN_LABEL_DISTANCE = 13.0  # units between two labels of the y axis


def plot_view(plot: SeriesPlot) -> dict[str, Any]:
    """Return the plot as JSON values; rows count from the first one shown."""
    ticks = [place * (plot.rows - 1) / (TICKS - 1) for place in range(TICKS)]
    channels = [_channel(each, plot) for each in plot.channels]
    return {
        "rows": plot.rows,
        "begin": plot.begin,
        "length": plot.length,
        "interval_s": plot.interval_s,
        "placed": plot.placed,
        "channels_total": plot.channels_total,
        "channels": channels,
        "ticks": [{"row": round(row - plot.begin), "at_s": plot.time_of(row)} for row in ticks],
        "span": [span for channel in channels for span in channel["shaded"]],
        "has_expected": any(channel["expected"] for channel in channels),
        "has_normal": any(channel["normal"] for channel in channels),
    }


def _channel(channel: Channel, plot: SeriesPlot) -> dict[str, Any]:
    levels = shaded(channel.levels, MAX_COLUMNS) if channel.levels is not None else []
    expected = channel.expected
    drawn = thinned(expected.astype(np.float32), MAX_COLUMNS) if expected is not None else []
    normal = channel.normal
    low, high = _domain(channel)
    return {
        "name": channel.name,
        "share": channel.share,
        "words": channel_words(channel, plot),
        "side": side_of(channel, plot).value,
        "normal": None if normal is None else {"low": normal.low, "high": normal.high, "words": normal.words},
        "points": thinned(channel.values.astype(np.float32), MAX_COLUMNS),
        "expected": drawn if any(value is not None for _, value in drawn) else [],
        "shaded": [(start + plot.begin, stop + plot.begin, level) for start, stop, level in levels],
        "low": low,
        "high": high,
    }


def _domain(channel: Channel) -> tuple[float, float]:
    """Return both ends of the y axis: readings and the normal range, and expected values that are not far off."""
    ends = channel.values[np.isfinite(channel.values)].tolist()
    if channel.normal is not None:
        ends += [channel.normal.low, channel.normal.high]
    if not ends:
        return 0.0, 1.0
    low, high = min(ends), max(ends)
    if low == high:
        return low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    if channel.expected is not None and np.isfinite(channel.expected).any():
        room = EXPECTED_ROOM * (high / 2 - low / 2)
        low = min(low, max(float(np.nanmin(channel.expected)), low - room))
        high = max(high, min(float(np.nanmax(channel.expected)), high + room))
    return low, high


def line(points: Sequence[tuple[float, float | None]], channel: Mapping[str, Any], rows: int) -> str:
    """Return the path of points; a missing value breaks the line."""
    commands, is_drawing = [], False
    for row, value in points:
        if value is None:
            is_drawing = False
            continue
        commands.append(f"{'L' if is_drawing else 'M'}{_x(row, rows):.1f} {_y(value, channel):.1f}")
        is_drawing = True
    return "".join(commands)


def spans(channel: Mapping[str, Any], rows: int) -> list[tuple[str, str, str]]:
    """Return the shaded spans of a channel: left edge, width and opacity."""
    found = []
    for start, stop, level in channel["shaded"]:
        left = _x(start - 0.5, rows)
        found.append((f"{left:.1f}", f"{max(MIN_SPAN, _x(stop - 0.5, rows) - left):.1f}", f"{0.12 + 0.4 * level:.2f}"))
    return found


def band(channel: Mapping[str, Any]) -> tuple[str, str]:
    """Return top and height of the normal range of a channel that has one."""
    normal = channel["normal"]
    top, bottom = _y(normal["high"], channel), _y(normal["low"], channel)
    return f"{top:.1f}", f"{max(1.0, bottom - top):.1f}"


def window_box(plot: Mapping[str, Any]) -> tuple[str, str]:
    """Return left edge and width of the judged window."""
    left = _x(plot["begin"] - 0.5, plot["rows"])
    return f"{left:.1f}", f"{_x(plot['begin'] + plot['length'] - 0.5, plot['rows']) - left:.1f}"


def axis_labels(channel: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the labels of the y axis as y, text and class: both ends of the normal range, then of the axis."""
    normal = channel["normal"]
    width = channel["high"] - channel["low"]
    wanted = [] if normal is None else [(normal["high"], "v-normal"), (normal["low"], "v-normal")]
    wanted += [(channel["high"], ""), (channel["low"], "")]
    placed: list[tuple[float, str, str]] = []
    for value, kind in wanted:
        y = min(max(_y(value, channel) + 3.5, 10.0), HEIGHT - 2.0)
        if all(abs(y - other) >= MIN_LABEL_DISTANCE for other, _, _ in placed):
            placed.append((y, figure(value, width), kind))
    return [(f"{y:.1f}", text, kind) for y, text, kind in placed]


def curve(values: Sequence[float | None]) -> str:
    """Return the path of one value in 0 to 1 for each frame, in a box of WIDTH by HEIGHT."""
    last = max(1, len(values) - 1)
    known = [(place, value) for place, value in enumerate(values) if value is not None and math.isfinite(value)]
    top = max((value for _, value in known), default=1.0) or 1.0
    parts = [
        f"{_x(place, last + 1):.1f} {HEIGHT - MARGIN - value / top * (HEIGHT - 2 * MARGIN):.1f}"
        for place, value in known
    ]
    return "M" + "L".join(parts) if parts else ""


def _x(row: float, rows: int) -> float:
    return min(max(row / max(1, rows - 1), 0.0), 1.0) * WIDTH


def _y(value: float, channel: Mapping[str, Any]) -> float:
    low, high = channel["low"], channel["high"]
    # Halves first: the difference of two readings near the end of float64 would overflow.
    share = (value / 2 - low / 2) / (high / 2 - low / 2) if high > low else 0.5
    return HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN)
