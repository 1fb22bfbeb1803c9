"""Readings become rows in the order of time, whatever order, gaps and clocks they come with."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.sources.alignment import Alignment, Reading, Row
from edge.sources.windows import WindowCutter
from shared.tables.times import MAX_SECONDS

NAN = math.nan


def alignment(interval_s: float = 1.0, hold_s: float = 0.0, lateness_s: float = 0.0, longest_gap: int = 5) -> Alignment:
    return Alignment(2, interval_s=interval_s, hold_s=hold_s, lateness_s=lateness_s, longest_gap=longest_gap)


def rows(of: Alignment, *readings: tuple[float, dict[int, float]]) -> list[Row]:
    found = [row for at_s, values in readings for row in of.add(Reading(at_s, values))]
    return found + list(of.flush())


def table(found: list[Row]) -> list[list[float]]:
    return [[None if math.isnan(value) else value for value in row.values.tolist()] for row in found]


def test_channels_of_different_rates_meet_in_rows() -> None:
    found = rows(alignment(), (0.1, {0: 1}), (0.2, {1: 5}), (0.6, {0: 2}), (1.1, {0: 3}), (2.3, {0: 4}), (2.4, {1: 6}))
    assert table(found) == [[2, 5], [3, None], [4, 6]]
    assert [row.at_s for row in found] == [1.0, 2.0, 3.0]
    assert [row.begins for row in found] == [True, False, False]


def test_a_value_is_held_as_long_as_it_is_valid() -> None:
    found = rows(alignment(hold_s=2.0), (0.5, {0: 1, 1: 7}), (1.5, {0: 2}), (2.5, {0: 3}), (3.5, {0: 4}))
    assert table(found) == [[1, 7], [2, 7], [3, 7], [4, None]]


def test_a_short_gap_is_missing_and_a_long_one_begins_anew() -> None:
    found = rows(alignment(), (0.5, {0: 1}), (3.5, {0: 2}))
    assert table(found) == [[1, None], [None, None], [None, None], [2, None]]
    found = rows(alignment(), (0.5, {0: 1}), (8.5, {0: 2}), (9.5, {0: 3}))
    assert table(found) == [[1, None], [2, None], [3, None]]
    assert [row.begins for row in found] == [True, True, False]


def test_late_readings_find_their_row_until_it_is_given() -> None:
    aligned = alignment(lateness_s=2.0)
    found = rows(aligned, (0.5, {0: 1}), (2.5, {0: 3}), (1.5, {0: 2}), (5.0, {0: 5}), (0.7, {0: 9}))
    assert table(found)[:3] == [[1, None], [2, None], [3, None]]
    assert aligned.late == 1


def test_one_mad_stamp_changes_nothing_and_a_clock_that_was_set_is_believed() -> None:
    ahead = [(1e9 + second, {0: float(second)}) for second in range(4)]
    aligned = alignment()
    found = rows(aligned, (1.5, {0: 1}), (4e9, {0: 99}), (2.5, {0: 2}), *ahead, (3.5, {0: 3}), (1e9 + 4.5, {0: 4}))
    assert table(found) == [[1, None], [2, None], [0, None], [1, None], [2, None], [3, None], [4, None]]
    assert [row.begins for row in found].count(True) == 2
    back = rows(alignment(), (1e9, {0: 1}), (1.5, {0: 2}), (2.5, {0: 3}), (3.5, {0: 4}))
    assert table(back) == [[1, None], [2, None], [3, None], [4, None]]


def test_without_an_interval_each_reading_is_a_row_unless_it_is_older() -> None:
    aligned = alignment(interval_s=0.0, hold_s=10.0)
    found = rows(aligned, (5.0, {0: 1}), (5.0, {1: 2}), (4.0, {0: 9}), (6.0, {0: 3}))
    assert table(found) == [[1, None], [1, 2], [3, 2]]
    assert aligned.late == 1


def test_rows_that_are_judged_alone_need_no_order() -> None:
    aligned = Alignment(1, interval_s=0.0, hold_s=0.0, lateness_s=0.0, is_ordered=False)
    found = rows(aligned, *((at_s, {0: at_s}) for at_s in (1e9, 5.0, 1e9 - 60, 4.0)))
    assert [row.values[0] for row in found] == [np.float32(at_s) for at_s in (1e9, 5.0, 1e9 - 60, 4.0)]
    assert aligned.late == 0


@given(
    st.lists(st.tuples(st.floats(-MAX_SECONDS, MAX_SECONDS), st.floats(), st.integers(0, 1)), max_size=60),
    st.sampled_from([0.0, 0.001, 1.0, 1e5]),
    st.sampled_from([0.0, 3.0]),
)
def test_whatever_comes_rows_rise_within_an_era_and_memory_stays_small(
    readings: list[tuple[float, float, int]], interval_s: float, hold_s: float
) -> None:
    aligned = alignment(interval_s, hold_s)
    found = rows(aligned, *((at_s, {channel: value}) for at_s, value, channel in readings))
    assert len(found) <= len(readings) * (1 + aligned._longest_gap)
    for before, after in pairwise(found):
        assert after.begins or after.at_s >= before.at_s
    assert not aligned._steps


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 7), st.integers(1, 9))
def test_windows_are_the_same_however_the_rows_come(portions: list[int], length: int, stride: int) -> None:
    cutter, total = WindowCutter(length, stride), sum(portions)
    series = np.arange(total * 2, dtype=np.float32).reshape(total, 2)
    found, firsts, lasts, start = [], [], [], 0
    for portion in portions:
        windows, first, last = cutter.cut(series[start : start + portion], np.arange(start, start + portion))
        found += list(windows.copy())
        firsts, lasts, start = firsts + first.tolist(), lasts + last.tolist(), start + portion
    expected = list(range(0, total - length + 1, stride))
    assert firsts == expected
    assert lasts == [first + length - 1 for first in expected]
    for window, first in zip(found, expected, strict=True):
        np.testing.assert_array_equal(window, series[first : first + length])


@pytest.mark.parametrize(("every_s", "interval_s"), [(30.0, 0.0), (3600.0, 0.0), (60.0, 60.0), (10.0, 10.0)])
def test_slow_sensors_lose_nothing(every_s: float, interval_s: float) -> None:
    aligned = alignment(interval_s, lateness_s=0.0, longest_gap=1)
    jitter = np.random.default_rng(0).uniform(0, 0.2 * every_s, 300)
    found = rows(aligned, *((1e9 + every_s * step + jitter[step], {0: float(step)}) for step in range(300)))
    assert [row.values[0] for row in found] == list(range(300))
    assert aligned.late == 0


def test_a_sensor_slower_than_its_rows_comes_late_but_whole() -> None:
    aligned = alignment(1.0, longest_gap=5)
    found = rows(aligned, *((1e9 + 30.0 * step, {0: float(step)}) for step in range(90)))
    assert [row.values[0] for row in found] == list(range(90))
    assert aligned.late == 0
