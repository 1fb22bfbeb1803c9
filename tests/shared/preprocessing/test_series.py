"""Inputs of windows: unit spread on normals, broken relations visible."""

import io
from typing import Any

import numpy as np
import pytest

from edge.sources.windows import WindowCutter
from shared.bundle import InputSpec
from shared.errors import BundleError, DataError
from shared.preprocessing import SeriesPreprocessor

LENGTH = 40
SPEC = InputSpec(channels=("a", "b"), window_length=LENGTH, window_stride=10)
HOLLOW_SPEC = SPEC.model_copy(update={"missing": True})


def windows(count: int, seed: int) -> np.ndarray:
    """Two noisy waves at random phases, (count, LENGTH, 2)."""
    generator = np.random.default_rng(seed)
    phase = generator.uniform(0, 2 * np.pi, (count, 1))
    time = np.arange(LENGTH) * 2 * np.pi / 20
    waves = np.stack([100 + 5 * np.sin(time + phase), -2 + 0.1 * np.cos(time + phase)], axis=2)
    return waves + generator.normal(0, 1, waves.shape) * [0.25, 0.005]


@pytest.fixture(scope="module")
def fitted() -> SeriesPreprocessor:
    return SeriesPreprocessor.fit(windows(600, 0), SPEC)


@pytest.fixture(scope="module")
def allowing() -> SeriesPreprocessor:
    return SeriesPreprocessor.fit(windows(600, 0), HOLLOW_SPEC)


def test_normal_windows_come_out_near_unit_spread(fitted: SeriesPreprocessor) -> None:
    inputs = fitted.prepare(windows(400, 1)).inputs
    assert inputs.dtype == np.float32
    assert inputs.shape[1] <= 64
    assert 0.5 < inputs[:, :2].std() < 1.5
    assert np.abs(inputs[:, -1]).mean() < 3


def test_a_shape_outside_the_subspace_shows_in_the_distance(fitted: SeriesPreprocessor) -> None:
    given = windows(20, 3)
    spiked = given.copy()
    spiked[:, 17, 0] += 8.0
    distance = -1 - len(SPEC.channels)
    assert (fitted.prepare(spiked).inputs[:, distance] > fitted.prepare(given).inputs[:, distance] + 5).all()


def test_a_broken_relation_shows_in_the_channels_and_in_the_residuals() -> None:
    generator = np.random.default_rng(8)
    common = generator.normal(size=(600, LENGTH, 1))
    related = np.concatenate([common, common + 0.1 * generator.normal(size=common.shape)], axis=2)
    preprocessor = SeriesPreprocessor.fit(related[:500], SPEC)
    normal, broken = related[500:], related[500:].copy()
    broken[:, 10:20, 1] *= -1
    before, after = preprocessor.prepare(normal).inputs[:, -2:], preprocessor.prepare(broken).inputs[:, -2:]
    assert (after > before.max() + 1).mean() > 0.9
    residuals = preprocessor.residuals(preprocessor.standardised(broken))
    inside = residuals[:, 10:20].mean()
    assert inside > 4 * residuals[:, 25:].mean()
    assert (
        0.3 < preprocessor.residuals(preprocessor.standardised(normal)).mean() < 1.0
    )  # in deviations, the shrunk ones a little too large


def test_a_window_does_not_depend_on_its_batch(fitted: SeriesPreprocessor) -> None:
    given = windows(30, 4)
    alone = np.concatenate([fitted.prepare(given[index : index + 1]).inputs for index in range(30)])
    np.testing.assert_allclose(fitted.prepare(given).inputs, alone, rtol=1e-5, atol=1e-5)


def test_missing_readings_are_carried_and_not_scored(allowing: SeriesPreprocessor) -> None:
    given = windows(200, 5)
    hollow = given.copy()
    hollow[np.random.default_rng(6).random(given.shape) < 0.3] = np.nan
    prepared = allowing.prepare(hollow)
    assert prepared.kept.tolist() == list(range(200))
    assert np.isfinite(prepared.inputs).all()
    whole = allowing.prepare(given).inputs
    assert prepared.inputs[:, -3:].mean() < whole[:, -3:].mean() + 0.1
    assert np.corrcoef(prepared.inputs[:, 0], whole[:, 0])[0, 1] > 0.95
    assert prepared.windows is not None
    np.testing.assert_array_equal(prepared.windows.observed, ~np.isnan(hollow))
    assert (allowing.residuals(prepared.windows)[np.isnan(hollow)] == 0).all()


def test_a_missing_channel_counts_as_expected_and_the_other_is_still_judged(allowing: SeriesPreprocessor) -> None:
    given = windows(50, 9)
    given[:, :, 1] = np.nan
    normal = allowing.prepare(given).inputs
    given[:, 5:15, 0] += 4.0
    shifted = allowing.prepare(given).inputs
    assert np.isfinite(normal).all()
    assert np.unique(normal[:, -1]).size == 1
    assert normal[0, -1] <= 0
    assert (shifted[:, -2] > normal[:, -2] + 1).all()


def test_unusable_windows_are_rejected_with_place_and_reason(
    fitted: SeriesPreprocessor, allowing: SeriesPreprocessor
) -> None:
    given = windows(5, 5)
    given[1] = np.nan
    given[2, 7, 1] = -np.inf
    given[3, 4, 0] = np.nan
    empty = (1, "is a window without any reading: all values are NaN.")
    infinite = (2, "channel 'b' at time point 7 of the window is infinite.")
    assert allowing.prepare(given).kept.tolist() == [0, 3, 4]
    assert allowing.prepare(given).rejections == [empty, infinite]
    assert fitted.prepare(given).kept.tolist() == [0, 4]
    assert fitted.prepare(given).rejections == [
        empty,
        infinite,
        (3, "channel 'a' at time point 4 of the window is NaN."),
    ]


@pytest.mark.parametrize("stride", [1, 7, LENGTH - 1, LENGTH, LENGTH + 3])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_windows_with_a_bad_shared_reading_are_rejected(fitted: SeriesPreprocessor, stride: int, bad: float) -> None:
    readings = windows(8, 6).reshape(8 * LENGTH, 2).astype(np.float32)
    for row in (0, LENGTH - 1, LENGTH, 3 * LENGTH + 11, 8 * LENGTH - 1):
        given = readings.copy()
        given[row, 1] = bad
        cut, starts, _ = WindowCutter(LENGTH, stride).cut(given, np.arange(len(given)))
        assert np.shares_memory(cut, given)
        prepared = fitted.prepare_for_engine(cut)
        inside = (starts <= row) & (row < starts + LENGTH)
        assert prepared.kept.tolist() == np.flatnonzero(~inside).tolist()
        assert [place for place, _ in prepared.rejections] == np.flatnonzero(inside).tolist()
        np.testing.assert_array_equal(prepared.inputs, cut[~inside].reshape(-1, LENGTH * 2))


def test_normal_data_may_lack_readings_or_a_whole_channel() -> None:
    normal = windows(300, 10)
    normal[np.random.default_rng(11).random(normal.shape) < 0.1] = np.nan
    inputs = SeriesPreprocessor.fit(normal, HOLLOW_SPEC).prepare(windows(50, 12)).inputs
    assert np.isfinite(inputs).all()
    assert np.abs(inputs[:, -3:]).mean() < 2
    normal[:, :, 1] = np.nan
    assert np.isfinite(SeriesPreprocessor.fit(normal, HOLLOW_SPEC).prepare(windows(50, 12)).inputs).all()
    with pytest.raises(DataError, match="contain a reading"):
        SeriesPreprocessor.fit(np.full((30, LENGTH, 2), np.nan), HOLLOW_SPEC)
    normal[3, 3, 0] = np.inf
    with pytest.raises(DataError, match="infinite"):
        SeriesPreprocessor.fit(normal, HOLLOW_SPEC)
    normal[3, 3, 0] = np.nan
    with pytest.raises(DataError, match="does not allow"):
        SeriesPreprocessor.fit(normal, SPEC)


def test_a_wrong_length_is_rejected_alone(fitted: SeriesPreprocessor) -> None:
    given = list(windows(3, 6))
    given[1] = given[1][:-1]
    prepared = fitted.prepare(given)
    assert prepared.kept.tolist() == [0, 2]
    assert "39 x 2 values; expected 40 x 2" in prepared.rejections[0][1]
    assert len(fitted.prepare(np.ones((3, LENGTH, 5))).rejections) == 3


@pytest.mark.parametrize(
    "given",
    [
        np.empty((0, LENGTH, 2)),
        np.full((2, LENGTH, 2), np.inf),
        np.ones((2, LENGTH, 3), dtype=np.float32),
        ["no", "window"],
        [],
        list(windows(2, 3)),
        [windows(1, 3)[0], windows(1, 4)[0][:-1], "no window"],
        windows(3, 5).astype(np.float32),
    ],
)
@pytest.mark.parametrize("missing", [False, True])
def test_engine_inputs_become_the_graph_inputs(
    given: Any, missing: bool, fitted: SeriesPreprocessor, allowing: SeriesPreprocessor
) -> None:
    preprocessor = allowing if missing else fitted
    expected, found = preprocessor.prepare(given), preprocessor.prepare_for_engine(given)
    assert found.kept.tolist() == expected.kept.tolist()
    assert found.rejections == expected.rejections
    assert found.inputs.shape == (len(found.kept), LENGTH * 2 * (2 if missing else 1))
    assert found.inputs.dtype == np.float32
    assert np.isfinite(found.inputs).all()
    graph_inputs = preprocessor.graph_inputs(found.inputs)
    assert graph_inputs.shape == expected.inputs.shape
    assert graph_inputs == pytest.approx(expected.inputs, abs=1e-2)


def test_a_stored_preprocessor_prepares_alike(fitted: SeriesPreprocessor) -> None:
    (data,) = fitted.files().values()
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        again = SeriesPreprocessor.from_arrays(dict(arrays), SPEC)
        given = windows(5, 7)
        np.testing.assert_array_equal(again.prepare(given).inputs, fitted.prepare(given).inputs)
        with pytest.raises(BundleError, match="does not fit"):
            SeriesPreprocessor.from_arrays(dict(arrays), SPEC.model_copy(update={"window_length": 41}))


def test_constant_windows_and_huge_values_stay_finite() -> None:
    spec = InputSpec(channels=("a",), window_length=8, window_stride=1)
    preprocessor = SeriesPreprocessor.fit(np.full((30, 8, 1), 7.0), spec)
    values = np.array([7.0, 1e300, -1e300]).reshape(3, 1, 1) * np.ones((3, 8, 1))
    assert np.isfinite(preprocessor.prepare(values).inputs).all()
    for_engine = preprocessor.prepare_for_engine(values).inputs  # float32 ends at 3e38
    assert np.isfinite(preprocessor.graph_inputs(for_engine)).all()


def test_windows_too_large_to_whiten_are_refused() -> None:
    spec = InputSpec(channels=("a",), window_length=4096, window_stride=1)
    with pytest.raises(DataError, match="window_length"):
        SeriesPreprocessor.fit(np.zeros((3, 4096, 1)), spec)
