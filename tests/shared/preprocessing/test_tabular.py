"""Inputs of table rows: standardised, finite, bad rows rejected."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shared.bundle import InputSpec
from shared.errors import BundleError, DataError
from shared.modalities import fit_preprocessor
from shared.modality import Modality
from shared.preprocessing import TabularPreprocessor
from shared.preprocessing.base import LINEAR_RANGE

SPEC = InputSpec(channels=("pressure", "flow", "valve"))


@pytest.fixture(scope="module")
def fitted() -> TabularPreprocessor:
    rows = np.random.default_rng(0).normal([100.0, -3.0, 5.0], [20.0, 0.1, 0.0], size=(500, 3))
    return TabularPreprocessor.fit(rows, SPEC)


def test_normal_rows_come_out_standardised(fitted: TabularPreprocessor) -> None:
    rows = np.random.default_rng(1).normal([100.0, -3.0, 5.0], [20.0, 0.1, 0.0], size=(2000, 3))
    inputs = fitted.prepare(rows).inputs
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs[:, :2].mean(axis=0), 0, atol=0.15)
    np.testing.assert_allclose(inputs[:, :2].std(axis=0), 1, atol=0.1)


def test_a_constant_feature_that_moves_is_seen(fitted: TabularPreprocessor) -> None:
    assert fitted.prepare(np.array([[100.0, -3.0, 7.0]])).inputs[0, 2] == pytest.approx(2.0)


@given(arrays(np.float64, (5, 3), elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_any_finite_row_gives_finite_inputs_in_its_order(rows: np.ndarray) -> None:
    preprocessor = TabularPreprocessor(SPEC, np.zeros(3), np.full(3, 1e-3))
    inputs = preprocessor.prepare(rows).inputs
    assert np.isfinite(inputs).all()
    order = np.argsort(rows[:, 0], kind="stable")
    assert (np.diff(inputs[order, 0]) >= 0).all()


def test_bad_rows_are_rejected_by_name_and_the_others_kept(fitted: TabularPreprocessor) -> None:
    rows = np.full((5, 3), 5.0)
    rows[1, 1], rows[3, 2] = np.nan, -np.inf
    prepared = fitted.prepare(rows)
    assert prepared.kept.tolist() == [0, 2, 4]
    assert prepared.rejections == [(1, "feature 'flow' is NaN."), (3, "feature 'valve' is infinite.")]
    np.testing.assert_array_equal(prepared.inputs, fitted.prepare(rows[[0, 2, 4]]).inputs)


def test_rows_of_another_width_or_type_are_rejected_alone(fitted: TabularPreprocessor) -> None:
    prepared = fitted.prepare([np.ones(3), np.ones(2), np.array(["a", "b", "c"]), np.zeros(3)])
    assert prepared.kept.tolist() == [0, 3]
    assert [position for position, _ in prepared.rejections] == [1, 2]
    assert "2 features; expected 3" in prepared.rejections[0][1]
    assert len(fitted.prepare(np.ones((4, 7))).rejections) == 4
    assert fitted.prepare(np.ones((4, 7))).inputs.shape == (0, 3)


def test_an_empty_batch_is_no_error(fitted: TabularPreprocessor) -> None:
    prepared = fitted.prepare(np.empty((0, 3)))
    assert prepared.inputs.shape == (0, 3)
    assert not prepared.rejections


def test_rows_that_do_not_fit_the_spec_are_refused() -> None:
    with pytest.raises(DataError, match="names 3 features"):
        fit_preprocessor(Modality.TABULAR, np.ones((10, 4)), SPEC)


def test_a_damaged_file_is_a_bundle_error() -> None:
    with pytest.raises(BundleError, match="scale"):
        TabularPreprocessor.from_arrays({"mean": np.zeros(3)}, SPEC)
    with pytest.raises(BundleError, match="features"):
        TabularPreprocessor.from_arrays({"mean": np.zeros(2), "scale": np.ones(2)}, SPEC)


GAPS = InputSpec(channels=SPEC.channels, missing=True)


def test_missing_values_are_fitted_around_and_told_from_average_ones() -> None:
    generator = np.random.default_rng(3)
    rows = generator.normal([100.0, -3.0, 5.0], [20.0, 0.1, 1.0], size=(4000, 3))
    whole = TabularPreprocessor.fit(rows, SPEC).prepare(rows[:1]).inputs
    rows[generator.random(rows.shape) < 0.3] = np.nan
    rows[0] = [np.nan, -3.0, 5.0]
    fitted = TabularPreprocessor.fit(rows, GAPS)
    prepared = fitted.prepare(np.array([[np.nan, -3.0, 5.0], [100.0, -3.0, 5.0]]))
    np.testing.assert_allclose(prepared.inputs[:, :3], 0.0, atol=0.1)
    assert prepared.inputs[0, 0] == 0
    np.testing.assert_array_equal(prepared.inputs[:, 3:], [[0, 1, 1], [1, 1, 1]])
    assert whole.shape == (1, 3)


def test_a_row_without_a_value_or_with_an_infinite_one_is_rejected_where_values_may_be_missing() -> None:
    fitted = TabularPreprocessor.fit(np.random.default_rng(4).normal(size=(50, 3)), GAPS)
    prepared = fitted.prepare(np.array([[np.nan] * 3, [1.0, np.nan, np.inf], [1.0, np.nan, 2.0]]))
    assert prepared.kept.tolist() == [2]
    assert "without any value" in prepared.rejections[0][1]
    assert prepared.rejections[1] == (1, "feature 'valve' is infinite.")
    assert fitted.prepare(np.ones((2, 7))).inputs.shape == (0, 6)
    assert fitted.prepare([np.ones(2)]).inputs.shape == (0, 6)


def test_a_feature_that_was_never_observed_cannot_be_fitted() -> None:
    rows = np.ones((30, 3)) * np.arange(30)[:, np.newaxis]
    rows[:, 1] = np.nan
    with pytest.raises(DataError, match="'flow' has no value in the training rows"):
        TabularPreprocessor.fit(rows, GAPS)
    with pytest.raises(DataError, match="allow missing"):
        TabularPreprocessor.fit(np.where(np.arange(30)[:, np.newaxis] == 4, np.nan, 1.0) * np.ones(3), SPEC)


def test_a_spec_that_says_nothing_new_is_stored_as_before() -> None:
    assert set(SPEC.model_dump()) == {"channels", "window_length", "window_stride", "image_height", "image_width"}
    assert InputSpec.model_validate(GAPS.model_dump(mode="json")) == GAPS


def test_rows_stay_linear_farther_than_readings_and_older_bundles_keep_their_range() -> None:
    rows = np.random.default_rng(0).normal(size=(400, 3))
    fitted = TabularPreprocessor.fit(rows, SPEC)
    arrays = dict(np.load(io.BytesIO(fitted.files()[TabularPreprocessor.file_path])))
    far = rows.mean(axis=0) + 8.0 * rows.std(axis=0)
    for again in (fitted, TabularPreprocessor.from_arrays(arrays, SPEC)):
        np.testing.assert_allclose(again.prepare(far[np.newaxis]).inputs, 8.0, rtol=1e-5)
    older = TabularPreprocessor.from_arrays({key: arrays[key] for key in ("mean", "scale")}, SPEC)
    inputs = older.prepare(far[np.newaxis]).inputs
    np.testing.assert_allclose(inputs, LINEAR_RANGE * (1.0 + np.log(8.0 / LINEAR_RANGE)), rtol=1e-5)
    np.testing.assert_allclose(older.raw_values(inputs), far[np.newaxis], rtol=1e-4)
    with pytest.raises(BundleError, match="linear range"):
        TabularPreprocessor.from_arrays({**arrays, "linear_range": np.array(np.nan)}, SPEC)
