"""Figures of the frozen set: what makes a candidate better or worse, and equal recall."""

import pytest

from cloud.retraining.figures import Conclusion, frozen_figures, sign_test
from cloud.store.comparison_samples import Answer, ComparedSample
from cloud.store.labels import Label
from shared.samples import Decision

RATE = 0.01


def sample(number: int, first: float | None, second: float | None, label: Label | None = None) -> ComparedSample:
    def answer(p_value: float | None) -> Answer:
        if p_value is None:
            return Answer(None, Decision.UNDECIDED, 1.0)
        return Answer(p_value, Decision.ANOMALOUS if p_value <= RATE else Decision.NORMAL, 1.0)

    return ComparedSample(number, None, None, label, answer(first), answer(second))


def compared(normals: int, dismissed: list[tuple[float, float]], defects: list[tuple[float, float]]):
    items = [sample(number, 0.5, 0.4) for number in range(normals)]
    items += [sample(1000 + number, *pair, Label.FALSE_ALARM) for number, pair in enumerate(dismissed)]
    items += [sample(2000 + number, *pair, Label.REAL) for number, pair in enumerate(defects)]
    return frozen_figures(items, "press-1-a", "press-2-b", RATE)


@pytest.mark.parametrize(
    ("dismissed", "defects", "conclusion"),
    [
        pytest.param([(0.005, 0.3)] * 8, [(0.001, 0.001)] * 6, Conclusion.BETTER, id="fewer-false-alarms"),
        pytest.param([(0.005, 0.3)] * 2, [(0.001, 0.001)] * 6, Conclusion.UNCLEAR, id="too-few-to-tell"),
        pytest.param([(0.005, 0.3)] * 8, [(0.001, 0.2)] * 6, Conclusion.WORSE, id="misses-defects"),
        pytest.param([(0.3, 0.005)] * 9, [(0.001, 0.001)] * 6, Conclusion.WORSE, id="more-false-alarms"),
        pytest.param([(0.005, 0.005)] * 3, [(0.2, 0.001)] * 7, Conclusion.BETTER, id="finds-more"),
        pytest.param([(0.005, 0.005)] * 12, [(0.2, 0.001)] * 7, Conclusion.BETTER, id="many-false-alarms-as-before"),
        pytest.param([(0.005, 0.005)] * 12, [(0.001, 0.001)] * 7, Conclusion.UNCLEAR, id="the-same-decisions"),
        pytest.param([(0.005, 0.005)] * 12 + [(0.3, 0.005)], [], Conclusion.WORSE, id="more-beyond-the-promise"),
    ],
)
def test_a_candidate_is_judged_by_decisions_that_changed(dismissed, defects, conclusion) -> None:
    assert compared(400, dismissed, defects).conclusion is conclusion


def test_figures_count_each_kind_and_leave_out_what_could_not_be_judged() -> None:
    items = [sample(1, 0.5, 0.5), sample(2, None, 0.5), sample(3, 0.002, 0.5, Label.FALSE_ALARM)]
    items += [sample(4, 0.001, 0.004, Label.REAL), sample(5, 0.5, 0.003, Label.MISSED)]
    found = frozen_figures(items, "press-1-a", "press-2-b", RATE)
    assert (found.judged, found.undecided) == (5, 1)
    running, candidate = found.running, found.candidate
    assert (running.false_alarms.hits, running.false_alarms.count, running.dismissed.count) == (1, 2, 1)
    assert (running.found.hits, candidate.found.hits, candidate.found.count) == (1, 2, 2)
    assert (running.auroc, candidate.auroc) == (0.625, 1.0)
    assert running.at_equal_recall.hits == 0, "the defect at 0.001 comes before the false alarm at 0.002"
    assert any("label more" in problem for problem in found.problems)
    assert any(problem.startswith("1 frozen") for problem in found.problems)


def test_the_sign_test_counts_throws_of_a_fair_coin() -> None:
    assert sign_test(0, 5) == pytest.approx(1 / 32)
    assert sign_test(1, 2) == pytest.approx(1 / 2)
