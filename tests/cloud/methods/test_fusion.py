"""Fused p-values are uniform on normals and gain from agreement."""

import numpy as np
import pytest
from numpy.typing import NDArray

from cloud.methods.fusion import Fusion
from shared.errors import DataError


def dependent_scores(count: int, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Return scores of three analyzers on normals: two correlated ones on different scales and an independent one."""
    common = rng.standard_normal(count)
    return {
        "first": np.exp(common),
        "second": 100 + common + 0.1 * rng.standard_normal(count),
        "third": rng.standard_normal(count) ** 2,
    }


def test_fused_p_values_are_uniform_on_normals_with_dependent_analyzers() -> None:
    rng = np.random.default_rng(0)
    shares = {rate: [] for rate in (0.01, 0.05, 0.2, 0.5)}
    for _ in range(30):
        fusion = Fusion.fit(dependent_scores(1000, rng))
        p = fusion.p_values(fusion.statistic(dependent_scores(2000, rng))).values
        for rate, found in shares.items():
            found.append(float((p <= rate).mean()))
    for rate, found in shares.items():
        assert np.mean(found) == pytest.approx(rate, rel=0.12)


@pytest.mark.parametrize("size", [20, 39, 40, 41])
def test_few_held_out_normals_do_not_raise_the_false_alarm_rate(size: int) -> None:
    rng = np.random.default_rng(1)
    rates = []
    for _ in range(60):
        fusion = Fusion.fit(dependent_scores(size, rng))
        rates.append((fusion.p_values(fusion.statistic(dependent_scores(500, rng))).values <= 0.1).mean())
    assert 0.04 < np.mean(rates) < 0.16


def test_agreement_of_analyzers_weighs_more_than_one_high_score() -> None:
    rng = np.random.default_rng(2)
    held_out = {name: rng.standard_normal(2000) for name in ("first", "second", "third")}
    fusion = Fusion.fit(held_out)
    all_three = {name: np.array([2.5]) for name in held_out}
    only_one = {**{name: np.array([0.0]) for name in held_out}, "first": np.array([2.5])}
    assert fusion.statistic(all_three)[0] > fusion.statistic(only_one)[0]
    assert fusion.p_values(fusion.statistic(all_three)).values[0] < 1e-3


def test_members_are_weighted_by_worth_and_equally_without_worth() -> None:
    rng = np.random.default_rng(5)
    held_out = dependent_scores(400, rng)
    worth = {"first": 0.0, "second": 0.3, "third": 0.1}
    weighed = Fusion.fit(held_out, worth=worth)
    assert weighed.weights == pytest.approx({"first": 0.0, "second": 0.75, "third": 0.25})
    odd_for_first = {**{name: scores[:1] for name, scores in held_out.items()}, "first": np.array([1e9])}
    plain = {name: scores[:1] for name, scores in held_out.items()}
    assert weighed.statistic(odd_for_first) == pytest.approx(weighed.statistic(plain))
    for unweighed in (Fusion.fit(held_out), Fusion.fit(held_out, worth=dict.fromkeys(held_out, 0.0))):
        assert unweighed.weights == pytest.approx(dict.fromkeys(held_out, 1 / 3))
        assert unweighed.statistic(odd_for_first) > unweighed.statistic(plain)
    again = Fusion.from_arrays(weighed.to_arrays())
    fresh = dependent_scores(50, rng)
    assert np.array_equal(again.statistic(fresh), weighed.statistic(fresh))
    damaged = {**weighed.to_arrays(), "weight/first/value": np.array(np.nan)}
    with pytest.raises(DataError, match="weights"):
        Fusion.from_arrays(damaged)


def test_fused_p_values_are_uniform_on_normals_for_any_weights() -> None:
    rng = np.random.default_rng(6)
    shares = []
    for _ in range(40):
        fusion = Fusion.fit(dependent_scores(800, rng), worth={"first": 0.05, "second": 0.4, "third": 0.2})
        shares.append(float((fusion.p_values(fusion.statistic(dependent_scores(2000, rng))).values <= 0.05).mean()))
    assert np.mean(shares) == pytest.approx(0.05, rel=0.12)


def test_the_statistic_rises_continuously_with_every_score() -> None:
    rng = np.random.default_rng(3)
    fusion = Fusion.fit(dependent_scores(60, rng))
    scores = {"first": np.full(200, 1.0), "second": np.linspace(99, 104, 200), "third": np.full(200, 0.4)}
    differences = np.diff(fusion.statistic(scores))
    assert (differences >= 0).all()
    assert (differences > 0).mean() > 0.8


def test_nan_and_infinite_scores_get_the_smallest_p_value() -> None:
    rng = np.random.default_rng(4)
    fusion = Fusion.fit(dependent_scores(500, rng))
    highest = fusion.statistic(dependent_scores(500, rng)).max()
    for value in (np.nan, np.inf, 1e300):
        statistic = fusion.statistic({name: np.array([value]) for name in ("first", "second", "third")})
        assert np.isfinite(statistic).all()
        assert statistic[0] > highest


def test_constant_scores_are_ignored() -> None:
    rng = np.random.default_rng(5)
    fusion = Fusion.fit({"constant": np.zeros(200), "useful": rng.standard_normal(200)})
    statistic = fusion.statistic({"constant": np.zeros(2), "useful": np.array([0.0, 4.0])})
    assert np.isfinite(statistic).all()
    assert statistic[1] > statistic[0]


def test_a_fusion_survives_a_round_trip_through_arrays() -> None:
    rng = np.random.default_rng(6)
    fusion = Fusion.fit(dependent_scores(100, rng))
    again = Fusion.from_arrays(fusion.to_arrays())
    queries = dependent_scores(50, rng)
    assert np.array_equal(again.statistic(queries), fusion.statistic(queries))
    assert again.own["first"].calibration_id == fusion.own["first"].calibration_id


def test_invalid_arrays_are_refused() -> None:
    arrays = Fusion.fit(dependent_scores(100, np.random.default_rng(7))).to_arrays()
    with pytest.raises(DataError, match="Not a fusion"):
        Fusion.from_arrays({name: array for name, array in arrays.items() if not name.startswith("fused")})
    with pytest.raises(DataError, match="Not a fusion"):
        Fusion.from_arrays({"scores": np.zeros(3)})


def test_a_missing_score_is_an_error_that_names_the_analyzer() -> None:
    rng = np.random.default_rng(8)
    fusion = Fusion.fit(dependent_scores(100, rng))
    with pytest.raises(DataError, match="third"):
        fusion.statistic({"first": np.zeros(1), "second": np.zeros(1)})


def test_too_few_held_out_normals_are_an_error() -> None:
    with pytest.raises(DataError, match="at least 20"):
        Fusion.fit({"first": np.zeros(19)})


def scores_by_mode(count: int, rng: np.random.Generator) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64]]:
    """Return scores in two modes; the second is ten times rarer and has ten times higher scores."""
    modes = (rng.random(count) < 0.1).astype(np.int64)
    return {name: scores * 10.0**modes for name, scores in dependent_scores(count, rng).items()}, modes


def test_with_modes_fused_p_values_are_uniform_in_each() -> None:
    rng = np.random.default_rng(9)
    found: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(30):
        fusion = Fusion.fit(*scores_by_mode(2000, rng))
        scores, modes = scores_by_mode(4000, rng)
        p = fusion.p_values(fusion.statistic(scores, modes), modes).values
        for mode, shares in found.items():
            shares.append(float((p[modes == mode] <= 0.1).mean()))
    assert np.mean(found[0]) == pytest.approx(0.1, rel=0.1)
    assert np.mean(found[1]) == pytest.approx(0.1, rel=0.2)


def test_an_unknown_mode_gets_the_smallest_p_value_of_all_modes() -> None:
    rng = np.random.default_rng(10)
    fusion = Fusion.from_arrays(Fusion.fit(*scores_by_mode(2000, rng)).to_arrays())
    scores, _ = scores_by_mode(300, rng)
    statistics = [fusion.statistic(scores, np.full(300, mode)) for mode in (-1, 0, 1)]
    assert (statistics[0] >= np.maximum(statistics[1], statistics[2])).all()
    p = [
        fusion.p_values(statistic, np.full(300, mode)).values
        for mode, statistic in zip((-1, 0, 1), statistics, strict=True)
    ]
    assert (p[0] <= np.minimum(p[1], p[2])).all()


def test_a_rare_mode_still_has_its_own_calibration() -> None:
    rng = np.random.default_rng(3)
    modes = np.repeat([0, 1], [400, 30])
    scores = {name: values + 5.0 * modes for name, values in dependent_scores(430, rng).items()}
    fusion = Fusion.fit(scores, modes)
    again = {name: values + 5.0 for name, values in dependent_scores(1000, rng).items()}
    rare = np.ones(1000, dtype=np.int64)
    p = fusion.p_values(fusion.statistic(again, rare), rare).values
    assert (p <= 0.1).mean() < 0.35
    assert (p <= 0.5).mean() > 0.2
