"""Sensors whose time stamps are off, and backlogs that are old without being wrong."""

from edge.sources.clock_check import ClockCheck
from shared.clocks import clock_words, device_clock_warning

DAY_S = 86400.0


def judged(of: ClockCheck, *periods: list[tuple[list[int], float]]) -> list[str | None]:
    """What is found at the end of each period of 61 s, whose readings come at its begin."""
    found = []
    for number, readings in enumerate(periods):
        for channels, offset_s in readings:
            of.add(channels, offset_s, number * 61.0)
        found.append(of.judge(number * 61.0 + 60.5))
    return found


def test_stamps_ahead_are_named_at_once_and_until_they_are_right() -> None:
    of = ClockCheck(("heat", "load"))
    for _ in range(3):
        of.add([0], 2 * DAY_S, 0.0)
        of.add([1], -0.5, 0.0)
    assert of.judge(0.1) == "time stamps of 'heat' are 2 days ahead of the device's clock: set the sensor's clock"
    assert of.judge(0.2) is None
    right = [([0, 1], -0.5)] * 3
    assert judged(of, right, right)[-1] == ""


def test_stamps_of_1970_are_named_after_a_minute() -> None:
    of, old = ClockCheck(("heat",)), [([0], -1.8e9)] * 5
    for channels, offset_s in old:
        of.add(channels, offset_s, 0.0)
    assert of.judge(30.0) is None
    assert of.judge(60.0) == "time stamps are 57 years behind the device's clock: set the sensor's clock"


def test_a_backlog_and_a_gateway_that_sends_every_minute_are_right() -> None:
    backlog = [([0], -3600.0 + 100 * step) for step in range(37)]
    batch = [([0], -60.0 + step) for step in range(60)]
    assert judged(ClockCheck(("heat",)), backlog, batch) == ["", ""]


def test_a_single_stray_stamp_is_nothing() -> None:
    of = ClockCheck(("heat",))
    of.add([0], 9 * DAY_S, 0.0)
    assert of.judge(1.0) is None


def test_offsets_in_words() -> None:
    assert clock_words(90, "the service") == "2 minutes ahead of the service"
    assert clock_words(-61, "the service") == "1 minute behind the service"
    assert clock_words(-1.8e9, "the service") == "57 years behind the service"
    assert clock_words(3 * DAY_S, "x") == "3 days ahead of x"
    assert device_clock_warning(59) == device_clock_warning(None) == ""
    assert "the device is 2 hours behind the service" in device_clock_warning(-7200)
