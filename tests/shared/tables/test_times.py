"""Times in every usual form, day and month told apart, and clocks that are set for daylight saving."""

import numpy as np
import pytest

from shared.tables.times import first_step_back, is_epoch, parse_column, parse_time, to_seconds

NOON = 1_761_307_200.0  # 2025-10-24 12:00 UTC


@pytest.mark.parametrize(
    "text",
    ["2025-10-24T12:00:00Z", "2025-10-24 12:00", "2025-10-24T14:00:00+02:00", "2025-10-24T12:00:00.0",
     "24.10.2025 12:00", "24/10/2025 12:00:00", "10/24/2025 12:00 PM", "24-10-2025 14:00 +02:00",
     "2025-10-24T12:00:00,000Z"],
)  # fmt: skip
def test_forms_of_one_moment(text: str) -> None:
    assert parse_time(text) == NOON


@pytest.mark.parametrize("value", [NOON, NOON * 1e3, NOON * 1e6, NOON * 1e9, str(NOON), "2025-10-24T12:00Z"])
def test_numbers_are_told_apart_by_size(value: object) -> None:
    assert to_seconds(value) == NOON


@pytest.mark.parametrize("text", ["", "yesterday", "2025-13-01", "31.02.2025", "12:00", "99/99/2025"])
def test_a_text_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"time|day|month"):
        parse_time(text)


def test_a_single_date_with_two_readings_needs_the_setting() -> None:
    with pytest.raises(ValueError, match="two readings"):
        parse_time("02/11/2025 10:00")
    assert parse_time("02/11/2025", "day_first") == parse_time("2025-11-02")
    assert parse_time("02/11/2025", "month_first") == parse_time("2025-02-11")


def test_a_column_of_dates_is_read_in_the_order_that_fits_all() -> None:
    texts = [f"{day:02}/11/2025 {hour:02}:00" for day in (2, 3, 4) for hour in range(24)]
    times, note = parse_column(texts)
    assert note == "dates are read with the day first"
    assert np.ptp(np.diff(times)) == 0
    swapped, note = parse_column([f"11/{day:02}/2025" for day in range(1, 12)])
    assert note == "dates are read with the month first"
    assert np.ptp(np.diff(swapped)) == 0


def test_the_end_of_daylight_saving_is_no_disorder_and_other_steps_back_are() -> None:
    times = np.arange(0, 6 * 3600, 120.0)
    local = np.where(times >= 3 * 3600, times - 3600, times)
    assert first_step_back(local) == (-1, True)
    assert first_step_back(times) == (-1, False)
    assert first_step_back(np.concatenate([times, times])) == (len(times), False)
    assert first_step_back(np.array([0.0, 120, 240, 60, 180, 300]))[0] == 3


def test_an_epoch_column_rises_like_a_clock() -> None:
    assert is_epoch(1.75e12 + 1000 * np.arange(10.0))
    assert is_epoch(1.75e9 + np.arange(10.0))
    assert not is_epoch(np.arange(10.0))
    assert not is_epoch(1.75e9 + np.array([0.0, 2, 1]))
    assert not is_epoch(np.full(5, 1.75e9))
