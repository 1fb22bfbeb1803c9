"""Times in every usual form, day and month told apart, and clocks that are set for daylight saving."""

import numpy as np
import pytest

from shared.tables.times import first_step_back, is_epoch, parse_column, parse_time, to_seconds

NOON = 1_761_307_200.0  # 2025-10-24 12:00 UTC


@pytest.mark.parametrize(
    "text",
    ["2025-10-24T12:00:00Z", "2025-10-24 12:00", "2025-10-24T14:00:00+02:00", "2025-10-24T12:00:00.0",
     "24.10.2025 12:00", "24/10/2025 12:00:00", "10/24/2025 12:00 PM", "24-10-2025 14:00 +02:00",
     "2025-10-24T12:00:00,000Z", "2025-10-24T14:00:00+02:00[Europe/Berlin]", "2025-10-24 14:00 CEST",
     "2025-10-24 07:00 EST", "2025-10-24 12:00:00 UTC", "2025/10/24 12:00", "2025-10-24 12:00 PM", "24 Oct 2025 12:00",
     "24-Oct-2025 12:00:00", "Oct 24, 2025 12:00 p.m.", "Fri, 24 Oct 2025 12:00:00 GMT", "October 24 2025, 12:00",
     "20251024T120000Z", "2025-10-24T17:30+0530"],
)  # fmt: skip
def test_forms_of_one_moment(text: str) -> None:
    assert parse_time(text) == NOON


@pytest.mark.parametrize("value", [NOON, NOON * 1e3, NOON * 1e6, NOON * 1e9, str(NOON), "2025-10-24T12:00Z"])
def test_numbers_are_told_apart_by_size(value: object) -> None:
    assert to_seconds(value) == NOON


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2025-13-01",
        "31.02.2025",
        "12:00",
        "99/99/2025",
        "24 Okt 2025",
        "2025-10-24 25:00 PM",
        "2025-10-24 12:60 UTC",
        "24.10.2025 12:00 XYZ",
    ],
)
def test_a_text_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"time|day|month|zone"):
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


def test_midnight_at_the_end_of_a_day_and_a_zone_across_a_change_of_the_clocks() -> None:
    assert parse_time("2025-10-24 24:00") == parse_time("2025-10-25 00:00")
    texts = [
        "2025-10-26T01:30:00+02:00",
        "2025-10-26T02:30:00+02:00",
        "2025-10-26T02:30:00+01:00",
        "2025-10-26 03:30 CET",
    ]
    times, note = parse_column(texts)
    assert np.diff(times).tolist() == [3600.0] * 3
    assert not note
    assert first_step_back(times) == (-1, False)


def test_fractions_on_some_rows_only() -> None:
    times, _ = parse_column(["2025-10-24T12:00:00.5Z", "2025-10-24T12:00:01Z", "2025-10-24T12:00:01.500000001Z"])
    np.testing.assert_allclose(times - NOON, [0.5, 1.0, 1.5])


@pytest.mark.parametrize(
    ("text", "dates"),
    [("24|10|25 12.00", "%d|%m|%y %H.%M"), ("20251024120000", "%Y%m%d%H%M%S"),
     ("14h00 24/10/25 +0200", "%Hh%M %d/%m/%y %z")],
)  # fmt: skip
def test_a_format_reads_any_other_form(text: str, dates: str) -> None:
    assert parse_time(text, dates=dates) == NOON
    assert to_seconds(text, dates=dates) == NOON
    assert parse_column([text], dates=dates)[0].tolist() == [NOON]
    with pytest.raises(ValueError, match="is not a time of the format"):
        parse_time("2025-10-24T12:00:00Z", dates=dates)


def test_a_whole_number_is_read_by_the_format_too() -> None:
    assert to_seconds(20251024120000, dates="%Y%m%d%H%M%S") == NOON


def test_times_of_day_go_on_after_midnight() -> None:
    times, note = parse_column(["23:58", "23:59:30.5", "00:01", "12:00 AM", "1:00 pm"])
    assert np.diff(times).tolist() == [90.5, 89.5, -60.0, 46800.0]
    assert "without a date" in note
