"""Plots of windows with an operating mode and missing readings, beside hostile ones."""

import numpy as np
import pytest
from numpy.typing import NDArray

from cloud.evidence.bundle_facts import BundleFacts
from cloud.evidence.series import Window, channel_words, series_plot, side_of
from cloud.evidence.standing import Side
from shared.bundle import InputSpec
from shared.modalities import fit_preprocessor
from shared.modality import Modality
from tests.cloud.evidence import plant

NAMES = ("mode", *plant.CHANNELS)


@pytest.fixture(scope="module")
def facts() -> BundleFacts:
    """Facts of a bundle whose windows have a mode and may miss readings."""
    normal = with_mode(plant.windows_of(plant.readings(4000)))
    normal[::7, :5, 3] = np.nan
    spec = InputSpec(
        channels=NAMES,
        window_length=plant.LENGTH,
        window_stride=plant.STRIDE,
        missing=True,
        mode_channel="mode",
        modes=(1.0, 2.0),
    )
    preprocessor = fit_preprocessor(Modality.SERIES, normal, spec)
    return BundleFacts(spec, preprocessor, preprocessor.ranges(), frozenset(), None)


def with_mode(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    mode = np.where(np.arange(len(windows)) % 2, 1.0, 2.0)[:, np.newaxis, np.newaxis]
    return np.concatenate([np.broadcast_to(mode, (*windows.shape[:2], 1)), windows], axis=2).astype(np.float32)


def test_a_mode_has_no_range_and_missing_readings_leave_gaps(facts: BundleFacts) -> None:
    values = with_mode(plant.windows_of(plant.falling()))[15]
    values[:, 3] = np.nan
    plot = series_plot(Window(0.0, "", values), [], NAMES, {"temperature_c": 0.9}, None, facts)
    channels = {channel.name: channel for channel in plot.channels}
    assert channels["mode"].normal is None
    assert channels["mode"].expected is None
    assert side_of(channels["temperature_c"], plot) is Side.BELOW
    assert side_of(channels["flow_l_min"], plot) is Side.MISSING
    assert channel_words(channels["flow_l_min"], plot) == "flow_l_min has no readings in this window"
    expected = channels["temperature_c"].expected
    assert expected is not None
    assert np.isfinite(expected).all()
    assert abs(float(expected.mean()) - 89.5) < 1.5


@pytest.mark.parametrize("value", [np.inf, -np.inf, 3e38, -3e38])
def test_readings_beyond_all_measure_are_plotted_without_a_fault(facts: BundleFacts, value: float) -> None:
    values = with_mode(plant.windows_of(plant.readings(64)))[0]
    values[4:9, 1] = value
    plot = series_plot(Window(0.0, "", values), [Window(1.0, "", values)], NAMES, {"temperature_c": 1.0}, None, facts)
    words = channel_words(plot.channels[0], plot)
    assert "temperature_c" in words
    assert plot.rows >= plant.LENGTH


def test_windows_of_another_bundle_are_shown_without_expected_values(facts: BundleFacts) -> None:
    plot = series_plot(Window(0.0, "", np.ones((7, 2), np.float32)), [], ("a", "b"), {}, None, facts)
    assert [channel.expected for channel in plot.channels] == [None, None]
    assert plot.rows == 7
