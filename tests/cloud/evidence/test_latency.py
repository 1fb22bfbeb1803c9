"""Latencies from clocks that are off: never negative, never years, and the clock is named."""

import uuid

import pytest

from cloud.evidence.latency import latency_of

NOW_S = 1.8e9
DAY_S = 86400.0


def sample_id(at_s: float) -> uuid.UUID:
    """A UUIDv7 of that moment."""
    return uuid.UUID(int=int(at_s * 1000) << 80 | 7 << 76 | 2 << 62)


def test_right_clocks_count_from_the_capture() -> None:
    found = latency_of(NOW_S - 5, sample_id(NOW_S - 4), NOW_S, NOW_S + 1)
    assert found.seconds == 6
    assert "5.0" in found.parts
    assert found.clock == ""


def test_an_hour_without_a_link_is_a_latency_of_an_hour() -> None:
    assert latency_of(NOW_S - 3600, sample_id(NOW_S - 3599), NOW_S, NOW_S).seconds == 3600


@pytest.mark.parametrize(
    ("captured_s", "words"),
    [(NOW_S + 2 * DAY_S, "2 days ahead of the device's clock"), (0.0, "57 years behind the device's clock")],
)
def test_a_sensor_with_a_wrong_clock_is_named_and_left_out(captured_s: float, words: str) -> None:
    found = latency_of(captured_s, sample_id(NOW_S - 4), NOW_S, NOW_S + 1)
    assert found.seconds == pytest.approx(5)
    assert words in found.clock
    assert words in found.parts


@pytest.mark.parametrize(("device_s", "words"), [(NOW_S + 2 * DAY_S, "2 days ahead"), (0.0, "57 years behind")])
def test_a_device_with_a_wrong_clock_counts_from_the_arrival(device_s: float, words: str) -> None:
    found = latency_of(device_s, sample_id(device_s), NOW_S, NOW_S + 1)
    assert found.seconds == 1
    assert f"the device's clock is {words} of the service's".replace("behind of", "behind") in found.clock


def test_a_few_seconds_ahead_are_nothing() -> None:
    found = latency_of(NOW_S + 20, sample_id(NOW_S + 21), NOW_S, NOW_S + 1)
    assert (found.seconds, found.clock) == (1, "")
    assert "\N{MINUS SIGN}" not in found.parts


@pytest.mark.parametrize("captured_s", [-1e11, 1e11, NOW_S, 0.0])
@pytest.mark.parametrize("device_s", [0.0, NOW_S, 2e11])
def test_no_clocks_give_a_negative_latency_or_years(captured_s: float, device_s: float) -> None:
    found = latency_of(captured_s, sample_id(device_s), NOW_S, NOW_S - 3)
    assert 0 <= found.seconds <= 30 * DAY_S
    assert "\N{MINUS SIGN}" not in found.words + found.parts
