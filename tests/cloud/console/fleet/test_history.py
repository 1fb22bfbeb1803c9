"""History of a device as plots: rates, gaps, counters that begin again, and states."""

import pytest

from cloud.console.fleet.history import SPANS_S, device_history
from cloud.store.heartbeat_history import SLOT_S, HistoryPoint
from cloud.words import NO_FIGURE
from shared.status import HeartbeatCounters

UNTIL_S = 1_000_000.0
SINCE_S = UNTIL_S - SPANS_S["6h"]


def point(at_s: float, screened: int, *, forwarded: int = 0, health: str = "healthy", spool: int = 0) -> HistoryPoint:
    counters = HeartbeatCounters(samples_screened=screened, samples_forwarded=forwarded)
    return HistoryPoint(at_s, counters, spool, 0, health, health == "drifting", 9e9)


def plots(*points: HistoryPoint) -> dict[str, object]:
    return {plot.title: plot for plot in device_history(points, SINCE_S, UNTIL_S).plots}


def test_rates_are_means_between_heartbeats() -> None:
    found = plots(point(SINCE_S, 0), point(SINCE_S + 300, 600, forwarded=6), point(SINCE_S + 600, 900, forwarded=6))
    rate, sent = found["Samples a second"], found["Sent to the cloud"]
    assert (rate.now, rate.most) == ("1", "2")
    assert (sent.now.replace("\u00a0", " "), sent.most.replace("\u00a0", " ")) == ("0.0 %", "1.0 %")
    assert rate.path.startswith("M8.3 4.0L16.7 32.0")


def test_a_silent_time_breaks_the_line_and_a_point_alone_is_seen() -> None:
    times = [SINCE_S, SINCE_S + SLOT_S, SINCE_S + 10 * SLOT_S, SINCE_S + 11 * SLOT_S, SINCE_S + 30 * SLOT_S]
    path = plots(*(point(at_s, 0, spool=5) for at_s in times))["Samples in the spool"].path
    assert path.count("M") == 3
    assert path.endswith("h1")


def test_counters_that_fall_begin_again_at_zero() -> None:
    found = plots(point(SINCE_S, 5000), point(SINCE_S + 300, 300), point(SINCE_S + 600, 600))
    assert found["Samples a second"].most == "1"


def test_an_empty_history_and_one_heartbeat_have_no_rate() -> None:
    assert device_history((), SINCE_S, UNTIL_S).points == 0
    one = plots(point(SINCE_S, 5))
    assert one["Samples a second"].is_empty
    assert one["Samples a second"].now == NO_FIGURE
    assert one["Samples in the spool"].path


def test_states_are_spans_in_order_with_gaps_where_nothing_was_heard() -> None:
    states = ["healthy", "healthy", "drifting", "healthy"]
    times = [0, 1, 2, 20]
    points = [point(SINCE_S + at * SLOT_S, 0, health=health) for at, health in zip(times, states, strict=True)]
    spans = device_history(points, SINCE_S, UNTIL_S).health
    assert [span.health for span in spans] == ["healthy", "drifting", "healthy"]
    edges = [(float(span.x), float(span.x) + float(span.width)) for span in spans]
    assert edges[1][0] == pytest.approx(edges[0][1], abs=0.2)
    assert edges[2][0] > edges[1][1] + 50


@pytest.mark.parametrize("count", [0, 5, 5000])
def test_a_long_history_has_a_bounded_path(count: int) -> None:
    history = device_history([point(SINCE_S + number, number) for number in range(count)], SINCE_S, UNTIL_S)
    assert all(len(plot.path) < 8000 for plot in history.plots)
