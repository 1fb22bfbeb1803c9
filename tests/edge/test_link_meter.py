"""Throughput is measured while the link is busy, and requests shrink on a slow link."""

import pytest

from edge.settings import UplinkSettings
from edge.uplink.meter import MIN_REQUEST_BYTES, LinkMeter, RequestLimits
from tests.edge.clock import Clock


def test_requests_that_share_the_link_add_up() -> None:
    clock = Clock()
    meter = LinkMeter(clock)
    for _ in range(4):
        meter.began()
    for _ in range(4):
        clock.now += 1.0
        meter.ended(1000)
    assert meter.throughput_bytes_per_s == pytest.approx(1000.0, rel=0.01)


def test_time_without_a_request_is_no_slowness() -> None:
    clock = Clock()
    meter = LinkMeter(clock)
    for _ in range(5):
        meter.began()
        clock.now += 0.1
        meter.ended(1000)
        clock.now += 100.0
    assert meter.throughput_bytes_per_s == pytest.approx(10_000.0)


def test_a_link_that_is_gone_is_not_slow_and_one_that_is_silent_is() -> None:
    clock = Clock()
    meter = LinkMeter(clock)
    meter.began()
    clock.now += 1.0
    meter.ended(1000)
    meter.began()
    clock.now += 5.0
    meter.abandoned()
    assert meter.throughput_bytes_per_s == pytest.approx(1000.0)
    meter.began()
    clock.now += 1.0
    meter.ended(0)
    assert meter.throughput_bytes_per_s == pytest.approx(500.0, rel=0.02)


def test_a_link_that_became_slow_is_known_within_a_minute() -> None:
    clock = Clock()
    meter = LinkMeter(clock)
    for seconds, size in ((1, 10**6), *[(1, 10**3)] * 60):
        meter.began()
        clock.now += seconds
        meter.ended(size)
    assert meter.throughput_bytes_per_s < 20_000


def test_round_trips_are_smoothed() -> None:
    meter = LinkMeter()
    meter.answered_in(0.1)
    assert meter.round_trip_s == pytest.approx(0.1)
    meter.answered_in(1.1)
    assert meter.round_trip_s == pytest.approx(0.3)


def test_a_slow_link_gets_requests_it_can_carry_in_time() -> None:
    """A link of 20 kB a second, four requests at once: as they are configured, 2 MiB, none would ever arrive."""
    limits = RequestLimits(UplinkSettings())
    misses = 0
    while (seconds := 4 * limits.bytes / 20_000) > limits.deadline_s:
        limits.late(limits.bytes)
        misses += 1
        assert misses < 10
    limits.arrived(seconds)
    assert 4 * limits.bytes / 20_000 <= limits.deadline_s


def test_a_fast_link_gets_large_requests_again() -> None:
    settings = UplinkSettings()
    limits = RequestLimits(settings)
    for _ in range(8):
        limits.late(limits.bytes)
    assert limits.bytes == MIN_REQUEST_BYTES
    assert limits.deadline_s > settings.deadline_s
    for _ in range(12):
        limits.arrived(0.05)
    assert (limits.bytes, limits.deadline_s) == (settings.batch_bytes, settings.deadline_s)


def test_one_sample_that_is_large_for_the_link_gets_the_time_it_needs() -> None:
    """2 MB at 20 kB a second need 100 s, five times the deadline."""
    limits = RequestLimits(UplinkSettings())
    for _ in range(12):
        if limits.deadline_s >= 100:
            break
        limits.late(2_000_000)
    assert limits.deadline_s >= 100


def test_requests_that_nobody_takes_are_halved() -> None:
    limits = RequestLimits(UplinkSettings(batch_samples=8))
    limits.too_large(8)
    assert limits.samples == 4
    for _ in range(5):
        limits.too_large(limits.samples)
    assert limits.samples == 1
    limits.arrived(0.1)
    assert limits.samples == 2
