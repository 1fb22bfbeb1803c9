"""A channel that is too still shows in its inputs."""

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.bundle import InputSpec
from shared.preprocessing import SeriesPreprocessor
from shared.preprocessing.stillness import Stillness, return_level

LENGTH, SPEC = 32, InputSpec(channels=("power", "voltage", "valve"), window_length=32, window_stride=8)


def daily(count: int, seed: int) -> NDArray[np.float64]:
    """Return windows of a slow daily wave with sensor noise, of noise, and of a valve that often rests."""
    rng = np.random.default_rng(seed)
    time = rng.uniform(0, 720, (count, 1)) + np.arange(LENGTH)
    power = np.sin(time / 720 * 2 * np.pi) + 0.05 * rng.normal(size=time.shape)
    valve = (rng.random((count, 1)) < 0.5) * rng.normal(size=time.shape)
    return np.stack([power, rng.normal(size=time.shape), valve], axis=2)


def stuck(windows: NDArray[np.float64], channel: int) -> NDArray[np.float64]:
    changed = windows.copy()
    changed[:, :, channel] = changed[:, :1, channel]
    return changed


@pytest.fixture(scope="module")
def fitted() -> SeriesPreprocessor:
    return SeriesPreprocessor.fit(daily(800, 0), SPEC)


def test_a_stuck_channel_shows_in_its_own_surprise_and_residuals(fitted: SeriesPreprocessor) -> None:
    normal = daily(100, 1)
    for channel in (0, 1):
        broken = stuck(normal, channel)
        column = fitted.surprise_columns.start + channel
        risen = fitted.prepare(broken).inputs[:, column] - fitted.prepare(normal).inputs[:, column]
        assert np.mean(risen > 1) > 0.95
        seen = fitted.standardised(broken)
        assert np.mean(fitted.residuals(seen).mean(axis=1).argmax(axis=1) == channel) > 0.95


def test_normal_windows_are_not_too_still_and_a_resting_channel_never_is(fitted: SeriesPreprocessor) -> None:
    normal = fitted.standardised(daily(2000, 2))
    assert np.mean(fitted.stillness.of(normal.values, normal.observed) > 0) < 0.005
    resting = fitted.standardised(stuck(daily(100, 3), 2))
    assert not fitted.stillness.of(resting.values, resting.observed)[:, 2].any()


def test_missing_readings_do_not_make_a_channel_too_still(fitted: SeriesPreprocessor) -> None:
    windows = fitted.standardised(daily(500, 4)).values
    observed = np.random.default_rng(5).random(windows.shape) > 0.5
    observed[:, :, 1] = False
    still = fitted.stillness.of(windows, observed)
    assert np.mean(still[:, 0] > 0) < 0.02
    assert not still[:, 1].any()


def test_a_bundle_without_stillness_has_none(fitted: SeriesPreprocessor) -> None:
    arrays = {name: getattr(fitted.views, name) for name in type(fitted.views).__dataclass_fields__ if name != "still"}
    old = SeriesPreprocessor.from_arrays({**arrays, **fitted.gaussian.to_arrays()}, SPEC)
    seen = old.standardised(stuck(daily(50, 6), 0))
    assert not old.stillness.of(seen.values, seen.observed).any()


def test_windows_of_one_time_point_have_no_stillness() -> None:
    windows = np.random.default_rng(7).normal(size=(50, 1, 2))
    observed = np.ones(windows.shape, dtype=bool)
    assert not Stillness.fit(windows, observed).of(windows, observed).any()


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_one_of_ten_times_as_many_values_exceeds_the_return_level(scale: float) -> None:
    rng = np.random.default_rng(8)
    levels = [return_level(rng.exponential(scale, 1000)) for _ in range(200)]
    exceeding = np.mean([np.sum(rng.exponential(scale, 10_000) > level) for level in levels])
    assert 0.5 < exceeding < 3
