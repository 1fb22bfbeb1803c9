"""Adaptive calibration: false alarms under drift, its limits against creeping faults, and its state."""

import numpy as np
import pytest

from shared.adaptive_calibration import AdaptationLimits, AdaptiveCalibration

PROMISE = 0.01
LIMITS = AdaptationLimits(memory=1000.0)


def follow(
    calibration: AdaptiveCalibration, surprise: np.ndarray, *, answered: float = 1.0, is_normal: bool = True
) -> np.ndarray:
    """Return p-values of a stream in blocks of 20 samples; a share of the withheld ones is answered a block later."""
    rng, found, waiting = np.random.default_rng(1), [], np.zeros(0)
    for block in np.array_split(surprise, max(1, len(surprise) // 20)):
        found.append(calibration.p_values(block))
        calibration.answer(waiting, np.full(len(waiting), is_normal), 1.0 / max(answered, 1e-9))
        withheld = block[calibration.observe(block)]
        waiting = withheld[rng.random(len(withheld)) < answered]
        calibration.move()
    return np.concatenate(found)


def normals(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).exponential(size=count)


def test_without_drift_the_promise_holds() -> None:
    p_values = follow(AdaptiveCalibration(500, LIMITS), normals(40_000), answered=0.2)
    assert 0.7 < float((p_values <= PROMISE).mean()) / PROMISE < 1.4
    assert 0.8 < float((p_values <= 0.2).mean()) / 0.2 < 1.2


def test_without_answers_thresholds_stay() -> None:
    p_values = follow(AdaptiveCalibration(500, LIMITS), normals(40_000), answered=0.0)
    assert 0.5 < float((p_values[20_000:] <= 0.05).mean()) / 0.05 < 1.5


@pytest.mark.parametrize("answered", [1.0, 0.1], ids=["all answered", "a tenth answered"])
def test_a_drift_of_scores_is_followed_where_verdicts_clear_them(answered: float) -> None:
    drifting = normals(30_000) * np.linspace(1.0, 3.0, 30_000)
    before = float((np.exp(-drifting) <= PROMISE).mean())
    after = float((follow(AdaptiveCalibration(500, LIMITS), drifting, answered=answered) <= PROMISE).mean())
    assert before > 8 * PROMISE
    assert after < 1.6 * PROMISE


@pytest.mark.parametrize("answered", [0.0, 1.0], ids=["nobody answers", "every anomaly is confirmed"])
def test_a_creeping_fault_is_not_learned(answered: float) -> None:
    calibration = AdaptiveCalibration(500, LIMITS)
    follow(calibration, normals(2000))
    fault = normals(20_000, 2) + np.linspace(0.0, 12.0, 20_000)
    p_values = follow(calibration, fault, answered=answered, is_normal=False)
    assert float((p_values[-2000:] <= PROMISE).mean()) > 0.95
    assert calibration.moved <= LIMITS.max_unconfirmed + 1e-9


def test_the_curve_moves_no_faster_than_allowed() -> None:
    calibration = AdaptiveCalibration(500, LIMITS)
    before = calibration.p_values(np.array([1.0]))[0]
    for _ in range(10):
        calibration.observe(np.full(10, 2.5))
    calibration.move()
    after = calibration.p_values(np.array([1.0]))[0]
    assert 0 < abs(np.log(after / before)) <= LIMITS.max_move * 100 / LIMITS.memory + 1e-9


def test_p_values_keep_the_order_of_the_scores_at_all_times() -> None:
    calibration, grid = AdaptiveCalibration(60, LIMITS), np.linspace(0, 60, 4001)
    for seed, scale in enumerate((1.0, 4.0, 0.2, 2.0)):
        follow(calibration, normals(2000, seed) * scale)
        p_values = calibration.p_values(grid)
        assert np.all(np.diff(p_values) <= 0)
        assert p_values[0] == pytest.approx(1.0)


def test_a_saved_state_goes_on_alike() -> None:
    one = AdaptiveCalibration(500, LIMITS)
    follow(one, normals(3000) * 1.5)
    other = AdaptiveCalibration.from_arrays(one.to_arrays(), LIMITS)
    further = normals(500, 9) * 1.5
    np.testing.assert_allclose(follow(one, further), follow(other, further), rtol=1e-5)
