"""Plots of the console: traces of channels, their axes and normal ranges."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cloud.console.why.plot import HEIGHT, axis_labels, band, line, plot_view
from cloud.console.why.traces import MAX_COLUMNS, shaded, sparkline_svg, thinned
from cloud.evidence.pictures import MAP_QUIET
from cloud.evidence.series import MAX_CHANNELS, Channel, SeriesPlot, Window, series_plot
from cloud.evidence.standing import NormalRange


def test_thinning_keeps_every_peak_and_breaks_at_missing_values() -> None:
    values = np.zeros(100_000, np.float32)
    values[54_321] = 9.0
    values[20_000:30_000] = np.nan
    points = thinned(values, MAX_COLUMNS)
    assert len(points) <= 2 * MAX_COLUMNS
    assert (54_321.0, 9.0) in points
    assert any(value is None for _, value in points)
    assert [time for time, _ in points] == sorted(time for time, _ in points)


def test_spans_cover_exactly_what_stands_out() -> None:
    levels = np.zeros(100, np.uint8)
    levels[40:60] = 255
    assert shaded(levels, 300) == [(40.0, 60.0, 1.0)]
    assert shaded(np.full(100, MAP_QUIET, np.uint8), 300) == []


def drawn_plot(
    values: NDArray[np.float32], cells: NDArray[np.uint8], names: Sequence[str], shares: Mapping[str, float]
) -> dict[str, Any]:
    return plot_view(series_plot(Window(0.0, "", values), [], names, shares, cells, None))


def test_plot_shows_the_channels_that_contribute_most() -> None:
    values = np.random.default_rng(1).normal(size=(64, 38)).astype(np.float32)
    cells = np.zeros((64, 38), np.uint8)
    cells[10:20, 30] = 200
    drawn = drawn_plot(values, cells, tuple(f"c{i}" for i in range(38)), {"c30": 0.9, "c2": 0.1})
    assert [channel["name"] for channel in drawn["channels"]][:2] == ["c30", "c2"]
    assert len(drawn["channels"]) == MAX_CHANNELS
    assert drawn["channels_total"] == 38
    assert drawn["channels"][0]["shaded"][0][:2] == (10.0, 20.0)
    assert drawn["channels"][1]["shaded"] == []
    assert drawn["channels"][0]["normal"] is None
    assert drawn["channels"][0]["words"].endswith("its normal range is unknown")


def test_plot_ignores_a_map_of_another_shape_and_survives_infinities() -> None:
    values = np.full((5, 1), np.inf, np.float32)
    drawn = drawn_plot(values, np.zeros((3, 3), np.uint8), (), {})
    assert drawn["span"] == []
    assert drawn["channels"][0]["name"] == "channel 1"
    assert all(value is None for _, value in drawn["channels"][0]["points"])
    assert drawn["channels"][0]["words"] == "channel 1 has no readings in this window"
    assert sparkline_svg(values, None).startswith(b"<svg")


def test_the_y_axis_holds_the_normal_range_so_that_a_quiet_window_looks_quiet() -> None:
    values = np.linspace(32, 33, 16)
    channel = Channel("t", 0.5, NormalRange(20.0, 50.0, 6.0), values, values + 100.0, None)
    drawn = plot_view(SeriesPlot(0, 16, (channel,), 1, None, 0.0, 0))["channels"][0]
    assert (drawn["low"], drawn["high"]) == (20.0, 57.5)  # a far expectation widens it by a quarter at most
    path = line(drawn["points"], drawn, 16)
    heights = [float(part.split(" ")[1]) for part in path.replace("M", "L").split("L")[1:]]
    assert max(heights) - min(heights) < 0.05 * HEIGHT
    top, height = (float(text) for text in band(drawn))
    assert top > 0
    assert top + height == pytest.approx(HEIGHT - 7, abs=0.2)
    assert [text for _, text, kind in axis_labels(drawn) if kind] == ["50", "20"]
