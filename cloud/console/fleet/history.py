"""History of a device as plots: rates between its kept heartbeats, with gaps where it was silent."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cloud.store.heartbeat_history import SLOT_S, SLOTS_THINNED, HistoryPoint
from cloud.words import NO_FIGURE, SPACE, bytes_words, count_words, number_words

WIDTH, HEIGHT, MARGIN = 600.0, 64.0, 4.0
SPANS_S = {"6h": 21_600.0, "24h": 86_400.0, "14d": 14 * 86_400.0, "84d": 84 * 86_400.0}
SPAN_LABELS = {"6h": "6 hours", "24h": "24 hours", "14d": "14 days", "84d": "84 days"}
GAP_S = 3 * SLOT_S
THINNED_GAP_S = 2.5 * SLOTS_THINNED * SLOT_S
MAX_POINTS = 400
Value = float | None


@dataclass(frozen=True, slots=True)
class HistoryPlot:
    """One plot: `path` is that of an SVG of WIDTH by HEIGHT, from 0 to `top`; `now` and `most` are in words."""

    title: str
    path: str
    now: str
    most: str
    is_empty: bool


@dataclass(frozen=True, slots=True)
class HealthSpan:
    """Time in which a device reported a state, as the place in a band of WIDTH."""

    health: str
    x: str
    width: str


@dataclass(frozen=True, slots=True)
class HistoryPlots:
    """Plots and states of a device between two times."""

    since_s: float
    until_s: float
    plots: tuple[HistoryPlot, ...]
    health: tuple[HealthSpan, ...]
    points: int


def device_history(points: Sequence[HistoryPoint], since_s: float, until_s: float) -> HistoryPlots:
    """Return the plots of the heartbeats between two times; counters that fall begin again at 0."""
    shown = [point for point in points if point.received_at_s <= until_s]
    pairs = list(itertools.pairwise(shown))
    times = [point.received_at_s for point in shown]

    def rates(count: Callable[[HistoryPoint], float]) -> list[Value]:
        return [None, *(_rate(one, other, count) for one, other in pairs)] if shown else []

    def shares(part: Callable[[HistoryPoint], float], whole: Callable[[HistoryPoint], float]) -> list[Value]:
        return [None, *(_share(one, other, part, whole) for one, other in pairs)] if shown else []

    def screened(point: HistoryPoint) -> float:
        return point.counters.samples_screened

    series: list[tuple[str, list[Value], Callable[[float], str]]] = [
        ("Samples a second", rates(screened), number_words),
        ("Sent to the cloud", shares(lambda point: point.counters.samples_sent, screened), _percent),
        ("Alarms", shares(lambda point: point.counters.samples_alarmed, screened), _percent),
        ("Upload a second", rates(lambda point: point.counters.bytes_uploaded), bytes_words),
        ("Samples in the spool", [float(point.spool_samples) for point in shown], _count),
        ("Dropped samples a second", rates(lambda point: point.counters.samples_dropped), number_words),
    ]
    place = _Place(since_s, until_s)
    plots = tuple(_plot(title, times, values, place, words) for title, values, words in series)
    return HistoryPlots(since_s, until_s, plots, _health(shown, place), len(shown))


@dataclass(frozen=True, slots=True)
class _Place:
    """Place of times on the x axis."""

    since_s: float
    until_s: float

    def x(self, at_s: float) -> float:
        return min(max((at_s - self.since_s) / (self.until_s - self.since_s), 0.0), 1.0) * WIDTH

    @property
    def gap_s(self) -> float:
        """Time without a heartbeat that breaks a line."""
        return THINNED_GAP_S if self.until_s - self.since_s > SPANS_S["14d"] else GAP_S


def _plot(
    title: str, times: Sequence[float], values: Sequence[Value], place: _Place, words: Callable[[float], str]
) -> HistoryPlot:
    known = [value for value in values if value is not None]
    top = max(known, default=0.0)
    now = next((value for value in reversed(values) if value is not None), None)
    return HistoryPlot(
        title=title,
        path=_path(times, values, place, top or 1.0),
        now=words(now) if now is not None else NO_FIGURE,
        most=words(top) if known else NO_FIGURE,
        is_empty=not known,
    )


def _path(times: Sequence[float], values: Sequence[Value], place: _Place, top: float) -> str:
    """Return the path of the values; a missing value and a silent time break the line."""
    commands: list[str] = []
    last_s = -math.inf
    step = max(1, math.ceil(len(times) / MAX_POINTS))
    for first in range(0, len(times), step):
        group = [value for value in values[first : first + step] if value is not None]
        at_s = times[min(first + step, len(times)) - 1]
        if not group:
            last_s = -math.inf
            continue
        y = HEIGHT - MARGIN - max(group) / top * (HEIGHT - 2 * MARGIN)
        is_drawing = at_s - last_s <= max(place.gap_s, 2.5 * step * SLOT_S)
        if not is_drawing and commands:
            commands.append("h1")  # so that a point alone is seen
        commands.append(f"{'L' if is_drawing else 'M'}{place.x(at_s):.1f} {y:.1f}")
        last_s = at_s
    return "".join([*commands, "h1"]) if commands else ""


def _health(points: Sequence[HistoryPoint], place: _Place) -> tuple[HealthSpan, ...]:
    """Return the states in the order of time, equal ones that follow each other as one."""
    spans: list[tuple[str, float, float]] = []
    for number, point in enumerate(points):
        following = points[number + 1 : number + 2]
        until_s = following[0].received_at_s if following else point.received_at_s + SLOT_S
        until_s = min(until_s, point.received_at_s + place.gap_s)
        if spans and spans[-1][0] == point.health and point.received_at_s - spans[-1][2] < 1.0:
            spans[-1] = (point.health, spans[-1][1], until_s)
        else:
            spans.append((point.health, point.received_at_s, until_s))
    return tuple(
        HealthSpan(health, f"{place.x(start_s):.1f}", f"{max(place.x(end_s) - place.x(start_s), 1.0):.1f}")
        for health, start_s, end_s in spans
    )


def _rate(one: HistoryPoint, other: HistoryPoint, count: Callable[[HistoryPoint], float]) -> Value:
    elapsed_s = other.received_at_s - one.received_at_s
    return _risen(count(one), count(other)) / elapsed_s if elapsed_s > 0 else None


def _share(
    one: HistoryPoint,
    other: HistoryPoint,
    part: Callable[[HistoryPoint], float],
    whole: Callable[[HistoryPoint], float],
) -> Value:
    total = _risen(whole(one), whole(other))
    return min(1.0, _risen(part(one), part(other)) / total) if total > 0 else None


def _risen(before: float, after: float) -> float:
    """Return by how much a counter has risen; one that is lower belongs to a new state of the device."""
    return after - before if after >= before else after


def _percent(share: float) -> str:
    return f"{100 * share:.{1 if share < 0.0995 else 0}f}{SPACE}%"


def _count(value: float) -> str:
    return count_words(round(value))
