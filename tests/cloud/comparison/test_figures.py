"""Figures of a comparison, their intervals, and the sentences about too few labels."""

import numpy as np
import pytest

from cloud.comparison.figures import auroc_interval, changed, figures_of, share
from cloud.store.comparison_samples import Answer, ComparedSample
from cloud.store.labels import Label
from shared.samples import Decision


def answer(p_value: float | None, latency_ms: float = 2.0) -> Answer:
    if p_value is None:
        return Answer(None, Decision.UNDECIDED, latency_ms)
    return Answer(p_value, Decision.ANOMALOUS if p_value <= 0.01 else Decision.NORMAL, latency_ms)


def sample(number: int, first: float | None, second: float | None, label: Label | None = None) -> ComparedSample:
    return ComparedSample(number, None, None, label, answer(first), answer(second, 6.0))


def test_detection_is_counted_on_labels_alone() -> None:
    found = [sample(number, 0.001, 0.5, Label.REAL) for number in range(8)]
    found += [sample(number, 0.5, 0.001, Label.FALSE_ALARM) for number in range(8, 20)]
    found += [sample(20, 0.5, 0.5), sample(21, None, 0.5, Label.REAL), sample(22, 0.001, 0.001)]
    figures = figures_of(found, "a", "b")
    assert (figures.judged, figures.agreement.hits, figures.agreement.count) == (23, 2, 22)
    assert (figures.only_first, figures.only_second, figures.real, figures.normal) == (8, 12, 8, 12)
    assert (figures.first.auroc, figures.second.auroc) == (1.0, 0.0)
    assert (figures.first.found.hits, figures.second.false_alarms.hits) == (8, 12)
    assert (figures.first.latency_median_ms, figures.second.latency_p95_ms) == (2.0, 6.0)
    assert "8 real and 12 false alarms" in figures.problems[0]
    assert "1 samples could not be judged" in figures.problems[1]


def test_nothing_is_claimed_without_labels_or_samples() -> None:
    figures = figures_of([sample(1, 0.5, 0.5)], "a", "b")
    assert (figures.first.auroc, figures.first.found.value, figures.first.auroc_low) == (None, None, None)
    empty = figures_of([], "a", "b")
    assert (empty.agreement.value, empty.first.latency_median_ms) == (None, None)


def test_the_largest_changes_come_first() -> None:
    found = [sample(1, 0.02, 0.009), sample(2, 0.9, 1e-9), sample(3, 0.5, 0.4), sample(4, None, 0.5)]
    assert [item.sample_number for item in changed(found, 2)] == [2, 1]


def test_intervals_cover_what_they_promise() -> None:
    generator = np.random.default_rng(5)
    counts = generator.binomial(40, 0.07, 2000)
    covered = [found.low <= 0.07 <= found.high for count in counts.tolist() if (found := share(count, 40))]
    assert 0.92 < np.mean(covered) < 0.99
    assert share(0, 20).low == 0.0
    assert share(0, 20).high == pytest.approx(0.161, abs=0.001)


def test_an_auroc_of_one_on_few_samples_has_a_wide_interval() -> None:
    low, high = auroc_interval(1.0, 5, 5)
    assert high == 1.0
    assert low < 0.75
    narrow, _ = auroc_interval(1.0, 200, 200)
    assert narrow > 0.97
    generator, covered = np.random.default_rng(6), 0
    true = 0.8413447  # of two normal distributions 1.4142 apart
    for _ in range(400):
        normal, anomalous = generator.normal(0, 1, 30), generator.normal(2**0.5, 1, 25)
        auroc = float(np.mean(anomalous[:, None] > normal[None, :]))
        low, high = auroc_interval(auroc, 25, 30)
        covered += low <= true <= high
    assert covered / 400 > 0.92
