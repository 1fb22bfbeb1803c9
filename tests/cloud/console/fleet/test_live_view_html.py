"""HTML of a live view: the axis of a thinned window, and routes in words."""

import re

import numpy as np
import pytest

from cloud.console.fleet.live_view import live_view_html
from cloud.live_views.desk import LiveView, LiveViewState
from shared.live_views import ShownSample
from shared.modality import Modality
from shared.samples import Route, Screening


def shown(*, every: int = 1, route: Route = Route.ACCEPT) -> str:
    """Return the HTML of a window with 101 time points of two channels."""
    screening = Screening(3.5, 0.01, False, route, "plant-1", "c", "int8_openvino")
    values = np.zeros((101, 2), np.float32)
    sample = ShownSample(Modality.SERIES, 1_700_000_000.0, "readings.csv:7", values, every, None, screening)
    return live_view_html(LiveView(LiveViewState.SHOWN, sample), "lab", None)


@pytest.mark.parametrize(("every", "ticks"), [(1, [0, 25, 50, 75, 100]), (10, [0, 250, 500, 750, 1000])])
def test_the_axis_of_a_thinned_window_counts_all_time_points(every: int, ticks: list[int]) -> None:
    (axis,) = re.findall(r'<p class="v-axis">(.*?)</p>', shown(every=every), re.DOTALL)
    assert [int(text) for text in re.findall(r"<span>(\d+)</span>", axis)] == ticks


@pytest.mark.parametrize(
    ("route", "words"),
    [
        (Route.ACCEPT, "not forwarded as suspicious"),
        (Route.FORWARD, "suspicious"),
        (Route.ALARM, "alarm"),
        (Route.AUDIT, "not suspicious, drawn at random for an audit"),
    ],
)
def test_a_route_says_nothing_about_whether_the_sample_is_sent(route: Route, words: str) -> None:
    html = shown(route=route)
    assert f"<dt>Route</dt><dd>{words}</dd>" in html
    assert "sent" not in html
