"""P-values are uniform in each operating mode."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.calibration import Calibration
from shared.calibration_modes import UNKNOWN, CalibrationByMode
from shared.errors import DataError

IDLE, FULL, RARE, RARER = 0, 1, 2, 3
CENTRES = np.array([0.0, 50.0, 20.0, 25.0])
COUNTS = (400, 300, 15, 10)


def draw(rng: np.random.Generator, counts: tuple[int, ...] = COUNTS) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    modes = np.repeat(np.arange(len(counts)), counts)
    return CENTRES[modes] + rng.gumbel(size=len(modes)), modes


def test_p_values_are_uniform_in_each_mode_and_not_only_over_all() -> None:
    rng = np.random.default_rng(0)
    found: dict[int, list[NDArray[np.float64]]] = {IDLE: [], FULL: []}
    for _ in range(200):
        calibration = CalibrationByMode.fit(*draw(rng, (99, 99)))
        scores, modes = draw(rng, (40, 40))
        p = calibration.p_values(scores, modes).values
        for mode, values in found.items():
            values.append(p[modes == mode])
    for values in found.values():
        p = np.concatenate(values)
        for rate in (0.01, 0.05, 0.1, 0.3, 0.5, 0.9):
            # As in test_calibration: samples of one calibration share its error of about sqrt(rate (1 - rate) / 99).
            deviation = math.sqrt(rate * (1 - rate) * (1 / 99 + 1 / 40) / 200)
            assert (p <= rate).mean() == pytest.approx(rate, abs=4 * deviation)


def test_a_score_that_is_common_at_full_load_is_alarming_at_idle() -> None:
    calibration = CalibrationByMode.fit(*draw(np.random.default_rng(1)))
    at_idle, at_full = calibration.p_values([50.0, 50.0], np.array([IDLE, FULL])).values
    assert at_idle < 1e-3
    assert at_full > 0.2


def test_rare_modes_share_a_calibration_and_keep_their_rate() -> None:
    rng = np.random.default_rng(2)
    shares = []
    for _ in range(300):
        calibration = CalibrationByMode.fit(*draw(rng))
        scores, modes = draw(rng)
        shares.append(calibration.p_values(scores, modes).values[modes >= RARE] <= 0.1)
    assert np.mean(shares) == pytest.approx(2 / 26, abs=0.015)  # the largest two of 25 and the sample itself
    with pytest.raises(DataError, match="at least 20"):
        CalibrationByMode.fit(*draw(rng, (6, 6, 4)))


@pytest.mark.parametrize("modes", [np.array([UNKNOWN] * 4), np.array([7] * 4), None])
def test_an_unknown_mode_gets_the_smallest_p_value_of_all(modes: NDArray[np.int64] | None) -> None:
    calibration = CalibrationByMode.fit(*draw(np.random.default_rng(3)))
    scores = [-2.0, 0.0, 50.0, math.nan]
    p = calibration.p_values(scores, modes).values
    each = [calibration.p_values(scores, np.full(4, mode)).values for mode in (IDLE, FULL, RARE)]
    np.testing.assert_array_equal(p, np.min(each, axis=0))
    assert p[2] < 1e-3
    assert p[3] < 1e-3
    np.testing.assert_array_equal(
        calibration.surprise(scores, modes),
        np.max([calibration.surprise(scores, np.full(4, mode)) for mode in (IDLE, FULL, RARE)], axis=0),
    )


def test_a_mode_with_too_few_held_out_and_no_others_like_it_is_judged_as_unknown() -> None:
    calibration = CalibrationByMode.fit(*draw(np.random.default_rng(4), (60, 60, 5)))
    assert calibration.rest is None
    scores = [0.0, 50.0]
    rare, unknown = (calibration.p_values(scores, np.full(2, mode)).values for mode in (RARE, UNKNOWN))
    np.testing.assert_array_equal(rare, unknown)


@pytest.mark.parametrize("rate", [0.3, 0.01, 1e-4])
@pytest.mark.parametrize("mode", [IDLE, FULL, RARE, RARER, UNKNOWN])
def test_the_threshold_of_a_mode_is_where_its_p_value_meets_the_rate(rate: float, mode: int) -> None:
    calibration = CalibrationByMode.fit(*draw(np.random.default_rng(5)))
    threshold = calibration.threshold(rate, mode)
    modes = np.array([mode])
    assert calibration.p_values([threshold], modes).values[0] <= rate
    assert calibration.p_values([threshold - 1e-6 * (1 + abs(threshold))], modes).values[0] > rate


def test_without_modes_it_is_the_plain_calibration_and_stored_as_such() -> None:
    scores = np.random.default_rng(6).normal(size=200)
    plain, by_mode = Calibration.fit(scores), CalibrationByMode.fit(scores)
    assert by_mode.calibration_id == plain.calibration_id
    assert set(by_mode.to_arrays()) == set(plain.to_arrays())
    asked = np.linspace(-4, 9, 50)
    for modes in (None, np.zeros(50, dtype=np.int64)):
        np.testing.assert_array_equal(by_mode.p_values(asked, modes).values, plain.p_values(asked).values)
        np.testing.assert_array_equal(by_mode.p_values(asked, modes).extrapolated, plain.p_values(asked).extrapolated)
    again = CalibrationByMode.from_arrays({**plain.to_arrays(), "map_range": np.array([0.0, 1.0])})
    assert again.calibration_id == plain.calibration_id


def test_arrays_hold_all_of_it_and_the_id_follows_the_contents() -> None:
    calibration = CalibrationByMode.fit(*draw(np.random.default_rng(7)))
    again = CalibrationByMode.from_arrays(calibration.to_arrays())
    assert again.calibration_id == calibration.calibration_id
    scores, modes = draw(np.random.default_rng(8))
    modes[::9] = UNKNOWN
    np.testing.assert_array_equal(again.p_values(scores, modes).values, calibration.p_values(scores, modes).values)
    other = CalibrationByMode.fit(*draw(np.random.default_rng(9)))
    assert other.calibration_id != calibration.calibration_id


@pytest.mark.parametrize(
    "broken",
    [{}, {"mode0.scores": np.arange(30.0)}, {"modeX.scores": np.arange(30.0)}, {"rare_modes": np.array(["a"])}],
)
def test_arrays_that_are_none_are_refused(broken: dict[str, NDArray[np.float64]]) -> None:
    with pytest.raises(DataError, match="Not a calibration"):
        CalibrationByMode.from_arrays(broken)
