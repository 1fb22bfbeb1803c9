"""Evidence of a window of readings: its channels over the surrounding time, beside normal and expected values.

Neighbouring windows of the source are placed by the rows that they share with one another, by the row numbers in their
origins, or by their times once the time between two rows is known. A window that none of these places is left out.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.evidence.bundle_facts import BundleFacts
from cloud.evidence.standing import NormalRange, Side, figure, normal_ranges
from cloud.modalities.series import series_preprocessor

MAX_CHANNELS = 12
MAX_WINDOWS = 24
NAMED_SHARE = 0.15  # of the deviation: a channel or feature with less is not named as its cause
MIN_DEVIATIONS, MIN_SHARE_BEYOND = 0.5, 0.1  # beyond the range that a window leaves it by
SURROUNDING_LENGTHS = 3  # window lengths shown before and after the window
_ROW = re.compile(r"(.*):(\d{1,15})", re.DOTALL)
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Window:
    """One stored window. `values`: (length, channels); `captured_at_s`: of its last row."""

    captured_at_s: float
    origin: str
    values: Floats


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel over the rows of a plot; NaN where nothing is stored.

    `values`, `expected`: (rows,) float64; `expected` is None where the bundle cannot tell. `levels`: (length,) uint8
    of the window's anomaly map, None without one.
    """

    name: str
    share: float | None
    normal: NormalRange | None
    values: NDArray[np.float64]
    expected: NDArray[np.float64] | None
    levels: NDArray[np.uint8] | None


@dataclass(frozen=True, slots=True)
class SeriesPlot:
    """Channels over the surrounding time, those with the largest contributions first.

    Rows `begin` to `begin + length` are the judged window. `interval_s`: seconds between two rows, None if unknown.
    `at_s`: capture of the window's last row. `placed`: neighbouring windows that are shown.
    """

    begin: int
    length: int
    channels: tuple[Channel, ...]
    channels_total: int
    interval_s: float | None
    at_s: float
    placed: int

    @property
    def rows(self) -> int:
        """Rows of the plot."""
        return len(self.channels[0].values) if self.channels else self.length

    def time_of(self, row: float) -> float | None:
        """Return the time of a row in seconds since the epoch, None if it is unknown."""
        if self.interval_s is None:
            return None
        return self.at_s + (row - (self.begin + self.length - 1)) * self.interval_s


def series_plot(
    window: Window,
    neighbours: Sequence[Window],
    names: Sequence[str],
    shares: Mapping[str, float],
    cells: NDArray[np.uint8] | None,
    facts: BundleFacts | None,
) -> SeriesPlot:
    """Return the plot of a window among its neighbours, which are of the same source in any order."""
    length, count = window.values.shape
    alike = [each for each in neighbours if each.values.shape == window.values.shape][:MAX_WINDOWS]
    offsets, interval_s = _placed(window, alike, facts.spec.window_stride if facts is not None else 0)
    reach = SURROUNDING_LENGTHS * length
    shown = [(offset, each) for offset, each in offsets if abs(offset) <= reach]
    first = max(min([0, *(offset for offset, _ in shown)]), -reach)
    end = min(max([length, *(offset + length for offset, _ in shown)]), length + reach)
    parts = [*shown, (0, window)]  # the judged window comes last: where windows overlap, it counts
    values = _spread(
        [each.values.astype(np.float64) for _, each in parts], [at - first for at, _ in parts], end - first
    )
    expected = _expected([each for _, each in parts], [at - first for at, _ in parts], end - first, facts)
    labels = [names[place] if place < len(names) else f"channel {place + 1}" for place in range(count)]
    order = sorted(range(count), key=lambda place: (-shares.get(labels[place], 0.0), place))[:MAX_CHANNELS]
    normal = normal_ranges(facts.ranges if facts is not None else None)
    usable = cells if cells is not None and cells.shape == window.values.shape else None
    measured = facts.spec.value_channels if facts is not None else ()
    channels = tuple(
        Channel(
            name=labels[place],
            share=shares.get(labels[place]),
            normal=normal.get(labels[place]),
            values=values[:, place],
            expected=None if expected is None or labels[place] not in measured else expected[:, place],
            levels=usable[:, place] if usable is not None else None,
        )
        for place in order
    )
    return SeriesPlot(-first, length, channels, count, interval_s, window.captured_at_s, len(shown))


def channel_words(channel: Channel, plot: SeriesPlot) -> str:
    """Return what a channel does in the window, compared with its normal range and the expected values."""
    within = slice(plot.begin, plot.begin + plot.length)
    values, name = channel.values[within], channel.name
    finite = values[np.isfinite(values)]
    if not len(finite):
        return f"{name} has no readings in this window"
    low, high = float(finite.min()), float(finite.max())
    if channel.normal is None:
        return f"{name} is {figure(low)} to {figure(high)}; its normal range is unknown"
    normal = channel.normal
    side = side_of(channel, plot)
    if side is Side.BELOW:
        return f"{name} is too low: {figure(low, normal.width)}, where normal is {normal.words}"
    if side is Side.ABOVE:
        return f"{name} is too high: {figure(high, normal.width)}, where normal is {normal.words}"
    return _within_words(channel, within)


def side_of(channel: Channel, plot: SeriesPlot) -> Side:
    """Return on which side of its normal range a channel leaves it within the window.

    Each hundredth normal reading lies beyond each end, so a few readings close to the range are within it.
    """
    values = channel.values[plot.begin : plot.begin + plot.length]
    finite = values[np.isfinite(values)]
    if not len(finite):
        return Side.MISSING
    if channel.normal is None:
        return Side.UNKNOWN
    normal, sides = channel.normal, []
    for side, extreme in ((Side.BELOW, float(finite.min())), (Side.ABOVE, float(finite.max()))):
        beyond = finite < normal.low if side is Side.BELOW else finite > normal.high
        is_out = normal.side(extreme) is side
        if is_out and (normal.deviations(extreme) >= MIN_DEVIATIONS or beyond.mean() >= MIN_SHARE_BEYOND):
            sides.append((normal.deviations(extreme), side))
    return max(sides)[1] if sides else Side.WITHIN


def _within_words(channel: Channel, within: slice) -> str:
    """Return the largest difference to the expected values of a channel whose readings are all normal."""
    normal, name = channel.normal, channel.name
    assert normal is not None
    text = f"{name} stays within its normal range of {normal.words}"
    if channel.expected is None or (channel.share is not None and channel.share < NAMED_SHARE):
        return text  # a faulty channel distorts what is expected of the others
    with np.errstate(invalid="ignore"):
        distance = np.abs(channel.values[within] - channel.expected[within])
    if not np.isfinite(distance).any():
        return text
    place = int(np.nanargmax(np.where(np.isfinite(distance), distance, np.nan)))
    if distance[place] < 0.5 * normal.scale:
        return text
    read, meant = float(channel.values[within][place]), float(channel.expected[within][place])
    side = "higher" if read > meant else "lower"
    return f"{text}, but is {side} than expected: {figure(read, normal.width)} instead of {figure(meant, normal.width)}"


def _placed(window: Window, others: Sequence[Window], stride: int) -> tuple[list[tuple[int, Window]], float | None]:
    """Return the rows between the beginning of the window and of each other one, and the seconds between two rows."""
    ordered = sorted([*others, window], key=_moment)
    centre = next(place for place, each in enumerate(ordered) if each is window)
    steps: list[int | None] = [_rows_between(earlier, later, stride) for earlier, later in itertools.pairwise(ordered)]
    known = [
        (ordered[place + 1].captured_at_s - ordered[place].captured_at_s) / rows
        for place, rows in enumerate(steps)
        if rows and ordered[place + 1].captured_at_s > ordered[place].captured_at_s
    ]
    interval_s = float(np.median(known)) if known else None
    found: list[tuple[int, Window]] = []
    for direction in (1, -1):
        offset, place = 0, centre
        while 0 <= place + direction < len(ordered):
            step = steps[place if direction > 0 else place - 1]
            if step is None and interval_s is not None:
                pair = ordered[place], ordered[place + direction]
                step = round(abs(pair[1].captured_at_s - pair[0].captured_at_s) / interval_s)
            if step is None:
                break
            offset, place = offset + direction * step, place + direction
            found.append((offset, ordered[place]))
    return found, interval_s


def _moment(window: Window) -> tuple[float, int]:
    """Return the place of a window in time; of windows that were captured at once, the rows decide."""
    found = _ROW.fullmatch(window.origin)
    return window.captured_at_s, int(found[2]) if found is not None else 0


def _rows_between(earlier: Window, later: Window, stride: int) -> int | None:
    """Return by how many rows a window begins after another one; None if their rows do not tell."""
    first, second = _ROW.fullmatch(earlier.origin), _ROW.fullmatch(later.origin)
    if first is not None and second is not None and first[1] == second[1] and int(second[2]) > int(first[2]):
        return int(second[2]) - int(first[2])
    for shift in range(stride or 1, len(earlier.values), stride or 1):
        overlap = earlier.values[shift:]
        if len(np.unique(overlap)) > 1 and np.array_equal(overlap, later.values[:-shift], equal_nan=True):
            return shift
    return None


def _spread(parts: Sequence[NDArray[np.float64]], begins: Sequence[int], rows: int) -> NDArray[np.float64]:
    """Return windows (length, channels) at their places among `rows` rows; NaN where there is none."""
    spread = np.full((rows, parts[0].shape[1]), np.nan)
    for part, begin in zip(parts, begins, strict=True):
        start, stop = max(0, begin), min(rows, begin + len(part))
        if start < stop:
            spread[start:stop] = part[start - begin : stop - begin]
    return spread


def _expected(
    windows: Sequence[Window], begins: Sequence[int], rows: int, facts: BundleFacts | None
) -> NDArray[np.float64] | None:
    """Return the readings expected of each channel given the others, NaN where they are unknown or not finite."""
    series = series_preprocessor(facts.preprocessor) if facts is not None else None
    if facts is None or series is None:
        return None
    prepared = facts.preprocessor.prepare([each.values for each in windows])
    if prepared.windows is None or not len(prepared.kept):
        return None
    readings = series.expected(prepared.windows)
    places = [facts.spec.channels.index(name) for name in facts.spec.value_channels]
    parts = []
    for each in readings:
        whole = np.full((each.shape[0], len(facts.spec.channels)), np.nan)
        whole[:, places] = np.where(np.isfinite(each), each, np.nan)
        parts.append(whole)
    return _spread(parts, [begins[place] for place in prepared.kept.tolist()], rows)
