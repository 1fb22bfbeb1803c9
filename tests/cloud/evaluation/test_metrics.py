"""Metrics against other implementations, closed forms and properties of all scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from cloud.evaluation.metrics import (
    average_precision,
    clopper_pearson,
    detection_figures,
    false_alarms,
    recall_at,
    threshold_at,
)
from cloud.metrics import auroc, false_alarms_at, separation
from shared.errors import DataError


@st.composite
def labelled_scores(draw: st.DrawFn):
    count = draw(st.integers(2, 60))
    labels = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    labels[:2] = [True, False]
    steps = draw(st.lists(st.integers(0, 12), min_size=count, max_size=count))  # few values, so ties occur
    return labels, np.array(steps, dtype=np.float64)


@given(labelled_scores())
def test_areas_are_those_of_scikit_learn(case) -> None:
    labels, scores = case
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores))


def test_separation_is_the_share_of_pairs_in_order() -> None:
    normal = np.array([0.0, 1.0, 2.0, 3.0])
    assert separation(normal, np.array([9.0, 8.0])) == 1.0
    assert separation(normal, normal) == 0.5
    assert separation(normal, np.array([0.5])) == 0.25


@given(labelled_scores(), st.floats(0.0, 0.99))
def test_recall_is_taken_where_no_more_normal_samples_are_flagged_than_allowed(case, rate: float) -> None:
    labels, scores = case
    threshold = threshold_at(labels, scores, rate)
    assert np.mean(scores[~labels] > threshold) <= rate + 1e-9
    assert recall_at(labels, scores, rate) == np.mean(scores[labels] > threshold)
    lower = scores[scores < threshold]
    if len(lower):  # one step lower would flag too many
        assert np.mean(scores[~labels] > np.nextafter(threshold, -np.inf)) > rate - 1e-9


@pytest.mark.parametrize(
    ("labels", "scores"),
    [([0, 0], [0.0, 1.0]), ([1, 1], [0.0, 1.0]), ([0, 1], [0.0, np.nan]), ([0, 1, 1], [0.0, 1.0])],
)
def test_missing_figures_are_named(labels, scores) -> None:
    with pytest.raises(DataError):
        detection_figures(np.array(labels, dtype=bool), np.array(scores))


def test_realised_false_alarms_lie_in_their_interval() -> None:
    uniform = np.random.default_rng(0).random(2000)
    alarms = false_alarms(uniform, 0.05)
    assert alarms.flagged == np.count_nonzero(uniform <= 0.05)
    assert alarms.low < 0.05 < alarms.high
    assert false_alarms(uniform / 2, 0.05).low > 0.05  # p-values twice too small
    assert clopper_pearson(0, 10) == (0.0, pytest.approx(1 - 0.025 ** (1 / 10)))
    assert clopper_pearson(10, 10)[1] == 1.0
    with pytest.raises(DataError, match="normal"):
        false_alarms(np.zeros(0), 0.05)


def test_false_alarms_at_a_recall_count_ties() -> None:
    normal, anomalous = np.array([1.0, 2.0, 2.0, 5.0]), np.array([2.0, 3.0, 9.0])
    assert [false_alarms_at(normal, anomalous, recalled) for recalled in range(4)] == [0, 0, 1, 3]
