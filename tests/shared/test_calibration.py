"""Calibration maps scores to p-values."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from shared.calibration import MIN_CALIBRATION_SIZE, MIN_P_VALUE, Calibration
from shared.errors import DataError

Floats = NDArray[np.float64]

finite = st.floats(-1e12, 1e12, allow_nan=False)
# Scores with many ties, as quantised graphs give them, and without.
score_sets = st.one_of(
    arrays(np.float64, st.integers(MIN_CALIBRATION_SIZE, 300), elements=finite),
    arrays(np.float64, st.integers(MIN_CALIBRATION_SIZE, 300), elements=st.integers(0, 4).map(float)),
)
rates = st.one_of(
    st.floats(1e-11, 0.999),
    st.tuples(st.integers(1, 300), st.integers(21, 301)).map(lambda pair: min(pair[0] / pair[1], 0.99)),
)


@given(score_sets, arrays(np.float64, 50, elements=st.floats(allow_nan=True, allow_infinity=True)))
def test_p_values_lie_in_the_unit_interval_and_never_rise_with_the_score(normal: Floats, asked: Floats) -> None:
    values = Calibration.fit(normal).p_values(asked).values

    assert ((values >= MIN_P_VALUE) & (values <= 1)).all()
    order = np.argsort(np.where(np.isnan(asked), np.inf, asked))
    assert (np.diff(values[order]) <= 0).all()


@given(score_sets)
def test_a_calibration_score_gets_its_exact_conformal_p_value(normal: Floats) -> None:
    result = Calibration.fit(normal).p_values(normal)

    expected = [(1 + np.count_nonzero(normal >= score)) / (len(normal) + 1) for score in normal]
    assert result.values == pytest.approx(expected)
    assert not result.extrapolated.any()


@given(score_sets)
def test_a_score_beyond_all_normals_is_extrapolated_and_one_that_is_nan_is_the_most_suspicious(normal: Floats) -> None:
    calibration = Calibration.fit(normal)
    result = calibration.p_values([np.nextafter(normal.max(), np.inf), 1e300, np.nan, np.inf])

    assert result.values.max() <= 1 / (len(normal) + 1)
    # Below the smallest normal number, the scale of a tail rounds to 0.
    assert result.extrapolated.all() or normal.max() - normal.min() < np.finfo(np.float64).tiny
    assert result.values[2] == result.values[3] == calibration.p_values([1e300]).values.min()


@given(score_sets, rates)
def test_the_threshold_is_the_smallest_score_whose_p_value_is_at_most_the_rate(normal: Floats, rate: float) -> None:
    calibration = Calibration.fit(normal)
    threshold = calibration.threshold(rate)

    if math.isinf(threshold):  # no tail where all scores are equal
        assert normal.max() - normal.min() < np.finfo(np.float64).tiny  # below it, the scale of a tail rounds to 0
        assert rate < 1 / (len(normal) + 1)
        assert calibration.p_values([1e300]).values > rate
        return
    assert calibration.p_values([threshold]).values <= rate
    # In the tail the last digits of two roundings may differ: a billionth lower is beyond doubt.
    lower = np.nextafter(threshold, -np.inf)
    if calibration.p_values([lower]).extrapolated:
        lower = threshold - 1e-9 * (calibration.tail_scale + threshold - calibration.tail_start + abs(threshold))
    assert calibration.p_values([lower]).values > rate


@given(score_sets, rates, rates)
def test_a_lower_rate_never_has_a_lower_threshold(normal: Floats, first: float, second: float) -> None:
    calibration = Calibration.fit(normal)
    low, high = sorted([first, second])

    assert calibration.threshold(low) >= calibration.threshold(high)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 1e-13, math.nan])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(DataError, match="false-alarm rate"):
        Calibration.fit(np.arange(50)).threshold(rate)


@pytest.mark.parametrize("name", ["gaussian", "exponential", "uniform", "student", "rounded"])
def test_fresh_normals_have_valid_p_values_at_every_rate(name: str) -> None:
    """P(p <= rate) <= rate, over calibration sets and fresh samples together; and not much below it."""
    draw = {
        "gaussian": lambda rng, shape: rng.normal(size=shape),
        "exponential": lambda rng, shape: rng.exponential(size=shape),
        "uniform": lambda rng, shape: rng.uniform(size=shape),
        "student": lambda rng, shape: rng.standard_t(3, size=shape),
        "rounded": lambda rng, shape: rng.normal(size=shape).round(1),
    }[name]
    rng = np.random.default_rng(7)
    sets, fresh, size = 400, 500, 199
    pairs = ((Calibration.fit(draw(rng, size)), draw(rng, fresh)) for _ in range(sets))
    values = np.concatenate([calibration.p_values(samples).values for calibration, samples in pairs])

    for rate in (0.005, 0.01, 0.05, 0.2, 0.5):
        # The samples of one set share its calibration: its quantile errs by about sqrt(rate (1 - rate) / size).
        deviation = math.sqrt(rate * (1 - rate) / size / sets)
        share = float((values <= rate).mean())
        assert share <= rate + 4 * deviation
        assert share >= (0.75 if name == "rounded" else 1.0) * rate - 4 * deviation


@pytest.mark.parametrize("shape", [0.0, 0.2, 0.4])
def test_a_generalised_pareto_tail_is_recovered(shape: float) -> None:
    rng = np.random.default_rng(3)
    uniform = rng.uniform(size=40_000)
    scores = -np.log(uniform) if shape == 0 else (uniform**-shape - 1) / shape
    calibration = Calibration.fit(scores)

    assert calibration.tail_shape == pytest.approx(shape, abs=0.06)
    # The excess of a Pareto tail over a threshold is a Pareto tail, with a scale that grows with the threshold.
    assert calibration.tail_scale == pytest.approx(1 + shape * calibration.tail_start, rel=0.1)
    for rate in (1e-5, 1e-6):
        truth = -math.log(rate) if shape == 0 else (rate**-shape - 1) / shape
        assert calibration.threshold(rate) == pytest.approx(truth, rel=0.35)


@pytest.mark.parametrize("seed", range(5))
def test_alarms_a_day_hold_far_beyond_what_the_data_resolves(seed: int) -> None:
    """A thousand normals and a rate of one in a hundred thousand: alarms are neither frequent nor absent."""
    rng = np.random.default_rng(seed)
    calibration = Calibration.fit(rng.chisquare(8, size=1000))
    fresh = rng.chisquare(8, size=2_000_000)

    alarms = np.count_nonzero(fresh >= calibration.threshold(1e-5))
    assert alarms <= 20 * 12
    assert calibration.p_values([fresh.mean() + 40 * fresh.std()]).values < 1e-5


def test_ties_at_the_start_of_the_tail_do_not_make_it_shorter() -> None:
    rng = np.random.default_rng(11)
    fine = rng.exponential(size=2000)
    coarse = fine.round(1)

    exact, rounded = Calibration.fit(fine), Calibration.fit(coarse)
    assert rounded.tail_scale / (1 - rounded.tail_shape) == pytest.approx(
        exact.tail_scale / (1 - exact.tail_shape), rel=0.2
    )
    assert rounded.threshold(1e-5) == pytest.approx(exact.threshold(1e-5), rel=0.3)


def test_scores_that_are_nearly_all_one_value_still_resolve_what_lies_beyond() -> None:
    scores = np.zeros(100)
    scores[-3:] = [0.5, 1.0, 1.5]
    calibration = Calibration.fit(scores)

    far, farther = calibration.p_values([3.0, 30.0]).values
    assert 1 / 101 > far > farther


@pytest.mark.parametrize(
    ("scores", "message"),
    [(np.arange(19), "at least 20"), ([1.0] * 30 + [math.nan], "not finite"), ([1.0] * 30 + [math.inf], "not finite")],
)
def test_scores_that_cannot_calibrate_are_refused(scores: Floats, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Calibration.fit(scores)


def test_scores_near_the_end_of_the_number_line_are_refused_or_usable() -> None:
    with pytest.raises(DataError, match="huge"):
        Calibration.fit([*np.arange(30.0), *[1.7e308] * 30, -1.7e308])


@given(score_sets)
def test_arrays_hold_all_of_a_calibration(normal: Floats) -> None:
    calibration = Calibration.fit(normal)
    copy = Calibration.from_arrays(calibration.to_arrays())

    asked = np.linspace(normal.min() - 1, normal.max() * 2 + 10, 100)
    assert copy.calibration_id == calibration.calibration_id
    assert np.array_equal(copy.p_values(asked).values, calibration.p_values(asked).values)


def test_the_id_changes_with_the_scores() -> None:
    first, second = Calibration.fit(np.arange(50.0)), Calibration.fit(np.arange(50.0) + 1e-9)
    assert first.calibration_id != second.calibration_id


GOOD = Calibration.fit(np.arange(50.0)).to_arrays()


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"scores": GOOD["scores"]},
        {"scores": GOOD["scores"][::-1], "tail": GOOD["tail"]},
        {"scores": np.array([]), "tail": GOOD["tail"]},
        {"scores": np.array(1.0), "tail": GOOD["tail"]},
        {"scores": np.array(["a", "b"]), "tail": GOOD["tail"]},
        {"scores": np.array([1.0, np.nan, 2.0]), "tail": GOOD["tail"]},
        {"scores": GOOD["scores"], "tail": np.array(1.0)},
        {"scores": GOOD["scores"], "tail": np.array([1.0, 2.0])},
        {"scores": GOOD["scores"], "tail": np.array([1.0, -2.0, 0.1])},
        {"scores": GOOD["scores"], "tail": np.array([1.0, np.inf, 0.1])},
        {"scores": GOOD["scores"], "tail": np.array([1e6, 1.0, 0.1])},
    ],
)
def test_arrays_that_are_no_calibration_are_refused(broken: dict[str, Floats]) -> None:
    with pytest.raises(DataError, match="Not a calibration"):
        Calibration.from_arrays(broken)


def test_beyond_the_data_every_step_further_is_more_surprising_and_less_probable() -> None:
    # A heavy tail whose fit leaves more than 1 / (n + 1) beyond the largest score: no two scores may tie there.
    scores = np.concatenate([np.linspace(0.0, 1.0, 900), 1.0 + np.linspace(0.0, 1.0, 100) ** 4])
    calibration = Calibration.fit(scores)
    further = np.linspace(scores.max() + 1e-3, scores.max() + 3.0, 50)
    assert (np.diff(calibration.surprise(further)) > 0).all()
    p_values = calibration.p_values(further).values
    assert (np.diff(p_values) < 0).all()
    assert p_values[0] == pytest.approx(1 / 1001, rel=0.05)
    assert calibration.surprise(further) == pytest.approx(-np.log(p_values))
