"""The member that learns from labels: its weight, and p-values that stay valid whatever was labelled."""

import numpy as np
import pytest
import torch

from cloud.methods.defaults.defect_likeness import DefectLikeness
from cloud.training.analysis import AnalysisOptions, FittedAnalysis, fit_analysis
from cloud.training.label_weights import LabelFold, choose_weights
from cloud.training.labelled import NO_LABELS, LabelledSamples
from shared.bundle import InputSpec
from shared.modalities import fit_preprocessor
from shared.modality import Modality

LEARNER = DefectLikeness.name


def rows(random: np.random.Generator, count: int) -> np.ndarray:
    return random.normal(size=(count, 4))


def tail_rows(random: np.random.Generator, count: int) -> np.ndarray:
    """Normal rows of a kind that is not in the normal data, so they are taken for anomalies."""
    return rows(random, count) * 0.3 + np.array([4.5, 0.0, 0.0, 0.0])


def defect_rows(random: np.random.Generator, count: int) -> np.ndarray:
    return rows(random, count) * 0.3 + np.array([0.0, 0.0, 3.5, 0.0])


def fitted(labelled: LabelledSamples, seed: int = 0) -> FittedAnalysis:
    random = np.random.default_rng(seed)
    more = np.reshape(labelled.false_alarms, (-1, 4))
    normals = np.concatenate([rows(random, 400), more])
    order = random.permutation(len(normals))
    train, held_out = normals[order[: len(order) * 7 // 10]], normals[order[len(order) * 7 // 10 :]]
    preprocessor = fit_preprocessor(Modality.TABULAR, train, InputSpec(channels=tuple("abcd")))
    options = AnalysisOptions(methods=("time_estimation", "knn"), fused=("time_estimation",), device="cpu")
    torch.set_num_threads(1)
    return fit_analysis(preprocessor, None, train, held_out, options, labelled=labelled)


@pytest.fixture(scope="module")
def labelled() -> LabelledSamples:
    random = np.random.default_rng(9)
    return LabelledSamples(list(defect_rows(random, 8)), list(tail_rows(random, 12)))


@pytest.fixture(scope="module")
def learned(labelled: LabelledSamples) -> FittedAnalysis:
    return fitted(labelled)


def test_without_labels_there_is_no_such_member() -> None:
    assert LEARNER not in fitted(NO_LABELS).analysis.fusion.weights
    assert LEARNER not in fitted(LabelledSamples([np.ones(4)] * 2)).analysis.fusion.weights, "two are too few"


def test_false_alarms_sink_below_defects_and_p_values_of_normals_stay_uniform(learned: FittedAnalysis) -> None:
    analysis, random = learned.analysis, np.random.default_rng(77)
    assert analysis.fusion.weights[LEARNER] >= 0.25
    assert sum(analysis.fusion.weights.values()) == pytest.approx(1.0)
    plain = fitted(NO_LABELS).analysis
    alarms, defects = tail_rows(random, 200), defect_rows(random, 200)

    def false_alarms(one) -> float:
        """Share of tail rows that score as high as the upper four fifths of the defects."""
        threshold = np.quantile(one.score(defects)["fused"], 0.2)
        return float((one.score(alarms)["fused"] >= threshold).mean())

    assert false_alarms(analysis) < 0.2 * false_alarms(plain)
    p_values = analysis.p_values(analysis.score(rows(random, 1000))["fused"])
    for rate in (0.05, 0.2, 0.5):
        assert (p_values <= rate).mean() < rate + 4 * np.sqrt(rate * (1 - rate) * (1 / 1000 + 1 / 62))


def test_the_preferred_weights_are_taken_unless_others_are_clearly_better() -> None:
    random = np.random.default_rng(3)
    pool = {name: random.exponential(size=300) for name in ("one", "two", LEARNER)}
    prior = {"one": 0.0, "two": 0.0}
    same = LabelFold(pool, {name: np.full(6, 20.0) for name in pool})
    assert choose_weights([same], LEARNER, prior) == {"one": 0.25, "two": 0.25, LEARNER: 0.5}
    blind = LabelFold(pool, {"one": np.full(6, 4.0), "two": np.full(6, 4.0), LEARNER: np.zeros(6)})
    assert choose_weights([blind], LEARNER, prior)[LEARNER] == 0.0, "it finds none of them"
    few = LabelFold(pool, {name: np.full(3, 20.0) for name in pool})
    assert choose_weights([few], LEARNER, prior)[LEARNER] == 0.25, "three defects cannot show other kinds"
    useless = LabelFold(pool, {"one": np.zeros(6), "two": np.full(6, 3.0), LEARNER: np.full(6, 3.0)})
    assert choose_weights([useless], LEARNER, prior)["one"] == 0.0
