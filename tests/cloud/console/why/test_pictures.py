"""Pictures of the console: heat maps over images, thumbnails, traces."""

import numpy as np
import pytest

from cloud.console.why.pictures import MAP_QUIET, fitted, overlay, overlay_png, picture_png, thumbnail_png
from cloud.console.why.traces import MAX_COLUMNS, plot, shaded, sparkline_svg, thinned
from shared.images import decode_image


def test_overlay_is_transparent_where_normal_and_strong_where_anomalous() -> None:
    cells = np.full((8, 8), MAP_QUIET, np.uint8)
    cells[:, 4:] = 255
    rgba = overlay(cells, 80, 80)
    assert rgba.shape == (80, 80, 4)
    assert rgba[40, 5, 3] == 0
    assert rgba[40, 75, 3] > 200
    assert rgba[40, 75, 0] > rgba[40, 75, 1]  # towards red


def test_overlay_keeps_its_proportions() -> None:
    picture = decode_image(overlay_png(np.zeros((7, 14), np.uint8)))
    assert picture.shape[1] == 2 * picture.shape[0]


@pytest.mark.parametrize("shape", [(3000, 20, 1), (20, 3000, 3), (1, 1, 3), (480, 640, 3)])
def test_images_of_any_proportion_are_fitted_and_never_enlarged(shape: tuple[int, int, int]) -> None:
    pixels = np.full(shape, 90, np.uint8)
    small = fitted(pixels, 128, 80)
    assert small.shape[0] <= 80
    assert small.shape[1] <= 128
    assert small.shape[2] == 3
    assert small.shape[0] <= shape[0]
    assert decode_image(picture_png(pixels)).shape[2] == 3
    assert decode_image(thumbnail_png(pixels, np.full((4, 4), 255, np.uint8)))[0, 0, 0] > 150


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


def test_plot_shows_the_channels_that_contribute_most() -> None:
    values = np.random.default_rng(1).normal(size=(64, 38)).astype(np.float32)
    cells = np.zeros((64, 38), np.uint8)
    cells[10:20, 30] = 200
    drawn = plot(values, cells, tuple(f"c{i}" for i in range(38)), [("c30", 0.9), ("c2", 0.1)])
    assert [channel["name"] for channel in drawn["channels"]][:2] == ["c30", "c2"]
    assert drawn["channels_total"] == 38
    assert drawn["channels"][0]["shaded"][0][:2] == (10.0, 20.0)
    assert drawn["channels"][1]["shaded"] == []


def test_plot_ignores_a_map_of_another_shape_and_survives_infinities() -> None:
    values = np.full((5, 1), np.inf, np.float32)
    drawn = plot(values, np.zeros((3, 3), np.uint8), (), [])
    assert drawn["span"] == []
    assert drawn["channels"][0]["name"] == "channel 1"
    assert all(value is None for _, value in drawn["channels"][0]["points"])
    assert sparkline_svg(values, None).startswith(b"<svg")
