"""Windows and periods of series."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cloud.training.samples.windows import (
    APERIODIC_LENGTH,
    choose_length,
    cut_windows,
    dominant_period,
    segments_of,
)


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 9))
def test_windows_contain_the_readings_at_their_positions(count: int, length: int, stride: int) -> None:
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
