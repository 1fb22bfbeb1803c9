"""Inputs of rows and windows with an operating mode."""

import numpy as np
import pytest

from shared.bundle import InputSpec
from shared.calibration_modes import UNKNOWN
from shared.errors import DataError
from shared.modalities import fit_preprocessor
from shared.modality import Modality
from shared.preprocessing import columns_of, modes_of

ROWS = InputSpec(channels=("flow", "mode", "heat"), missing=True, mode_channel="mode", modes=(1.0, 2.5, 7.0))
WINDOWS = InputSpec(channels=("a", "mode", "b"), window_length=6, mode_channel="mode", modes=(0.0, 1.0))


def rows(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal([10.0, 0.0, -4.0], [2.0, 1.0, 0.5], size=(count, 3))
    values[:, 1] = rng.choice(ROWS.modes, count)
    return values


def test_the_inputs_tell_values_mask_and_mode_apart() -> None:
    preprocessor = fit_preprocessor(Modality.TABULAR, rows(400), ROWS)
    asked = np.array([[10.0, 2.5, np.nan], [14.0, 7.0, -4.0], [10.0, 3.0, -4.0], [10.0, np.nan, -4.0]])
    prepared = preprocessor.prepare(asked)
    parts = columns_of(prepared.inputs, ROWS)
    assert prepared.inputs.shape == (4, 2 + 2 + 3)
    assert parts.modes is not None
    assert parts.modes.tolist() == [1, 2, UNKNOWN, UNKNOWN]
    assert parts.observed is not None
    assert parts.observed[:, :2].tolist() == [[True, False], [True, True], [True, True], [True, True]]
    assert parts.vectors.shape == parts.observed.shape == (4, 5)
    assert parts.vectors[0, 1] == 0
    assert parts.vectors[1, 0] == pytest.approx(2.0, abs=0.3)


def test_the_mode_is_no_measurement() -> None:
    preprocessor = fit_preprocessor(Modality.TABULAR, rows(400), ROWS)
    first, second = preprocessor.prepare(np.array([[10.0, 1.0, -4.0], [10.0, 7.0, -4.0]])).inputs
    np.testing.assert_array_equal(first[:4], second[:4])
    assert ROWS.value_channels == ("flow", "heat")


def test_samples_of_another_shape_or_without_values_are_rejected_alone() -> None:
    preprocessor = fit_preprocessor(Modality.TABULAR, rows(400), ROWS)
    prepared = preprocessor.prepare(
        [np.ones(3), np.ones(2), np.array([np.nan, 1.0, np.nan]), np.array(["x", "y", "z"]), np.full(3, np.inf)]
    )
    assert prepared.kept.tolist() == [0]
    assert [position for position, _ in prepared.rejections] == [1, 2, 3, 4]
    assert "expected 3, including the mode" in prepared.rejections[0][1]
    assert preprocessor.prepare(np.empty((0, 3))).inputs.shape == (0, 7)
    assert preprocessor.prepare([]).inputs.shape == (0, 7)
    assert len(preprocessor.prepare(np.ones((4, 2))).rejections) == 4


def test_a_window_is_in_the_mode_of_its_last_reading() -> None:
    rng = np.random.default_rng(1)
    windows = rng.normal(size=(200, 6, 3))
    windows[:, :, 1] = 0.0
    windows[::2, -1, 1] = 1.0
    preprocessor = fit_preprocessor(Modality.SERIES, windows, WINDOWS)
    prepared = preprocessor.prepare(windows)
    modes = modes_of(prepared.inputs, WINDOWS)
    assert modes is not None
    assert modes.tolist() == [1, 0] * 100
    assert preprocessor.prepare(windows[0]).kept.tolist() == []


def test_normal_samples_without_the_mode_s_column_are_refused() -> None:
    with pytest.raises(DataError, match="names 3 channels"):
        fit_preprocessor(Modality.TABULAR, np.ones((30, 2)), ROWS)
