import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.training.windows import (
    APERIODIC_LENGTH,
    choose_length,
    cut_windows,
    dominant_period,
    segments_of,
    windows_to_points,
)


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 9))
def test_windows_are_the_readings_at_their_places(count: int, length: int, stride: int) -> None:
    readings = np.arange(count * 2, dtype=float).reshape(count, 2)
    windows = cut_windows(readings, length, stride)
    starts = range(0, count - length + 1, stride)
    assert len(windows) == len(starts)
    for window, start in zip(windows, starts, strict=True):
        np.testing.assert_array_equal(window, readings[start : start + length])


@given(st.lists(st.booleans(), max_size=40))
def test_segments_are_the_runs_of_true(usable: list[bool]) -> None:
    found = np.zeros(len(usable), dtype=bool)
    previous_end = -1
    for run in segments_of(np.array(usable, dtype=bool)):
        assert run.start > previous_end
        found[run] = True
        previous_end = run.stop
    assert found.tolist() == usable


def test_the_period_of_a_noisy_wave_is_found() -> None:
    generator = np.random.default_rng(0)
    time = np.arange(4000)
    wave = np.sin(2 * np.pi * time / 53) + 0.5 * np.sin(4 * np.pi * time / 53) + generator.normal(0, 0.3, 4000)
    assert abs(dominant_period(wave[:, np.newaxis], 500) - 53) <= 1
    assert abs(choose_length([wave[:, np.newaxis]]) - 53) <= 1


def test_noise_and_constants_have_no_period() -> None:
    noise = np.random.default_rng(1).normal(size=(3000, 3))
    assert dominant_period(noise, 300) == 0
    assert choose_length([noise]) == APERIODIC_LENGTH
    assert dominant_period(np.ones((500, 2)), 50) == 0


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 5))
def test_a_time_point_gets_the_mean_of_the_windows_that_hold_it(length: int, windows: int, stride: int) -> None:
    starts = np.arange(windows) * stride
    scores = np.random.default_rng(length).normal(size=windows)
    total = int(starts[-1]) + length
    points = windows_to_points(scores, starts, length, total, smoothed_lengths=0)
    for point in range(total):
        holding = (starts <= point) & (point < starts + length)
        if holding.any():
            assert points[point] == pytest.approx(scores[holding].mean())


def test_smoothing_keeps_the_place_and_the_mean_of_a_peak() -> None:
    scores = np.zeros(200)
    scores[100] = 1.0
    points = windows_to_points(scores, np.arange(200), 10, 209)
    assert abs(int(np.average(np.arange(209), weights=points)) - 104) <= 1
    assert points.sum() == pytest.approx(1.0)
    assert (points >= 0).all()
    assert windows_to_points(np.ones(200), np.arange(200), 10, 209) == pytest.approx(np.ones(209))


def test_points_in_no_window_get_their_neighbours_score_and_a_huge_one_spoils_no_other() -> None:
    points = windows_to_points(np.array([1e30, 2.0]), np.array([2, 20]), 3, 30, smoothed_lengths=0)
    assert points[[0, 5, 9]] == pytest.approx([1e30] * 3)
    assert points[[15, 20, 29]] == pytest.approx([2.0] * 3)


def test_windows_that_do_not_fit_the_series_are_refused() -> None:
    for starts in (np.array([], dtype=int), np.array([-1]), np.array([8])):
        with pytest.raises(ValueError, match="do not fit"):
            windows_to_points(np.zeros(len(starts)), starts, 3, 10)
