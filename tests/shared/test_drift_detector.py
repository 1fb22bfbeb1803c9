"""Drift detector: its rate of false alarms on exchangeable values, and what it finds."""

import numpy as np

from shared.drift_detector import BINS, DriftDetector

LIMIT = 1000.0


def edges(values: int) -> np.ndarray:
    """Edges of bins over the normal distribution, the same for each watched value."""
    return np.tile(np.quantile(np.random.default_rng(5).normal(size=4000), np.arange(1, BINS) / BINS), (values, 1))


def test_false_alarms_keep_to_the_stated_rate_from_any_reference() -> None:
    rng, runs, length = np.random.default_rng(0), 2000, 120
    counts = np.zeros((runs, BINS))
    for _ in range(30):  # a small reference of the same distribution: conformal p-values need no large one
        bins = (rng.normal(size=(runs, 1)) > edges(runs)).sum(axis=1)
        counts[np.arange(runs), bins] += 1
    detector, crossed = DriftDetector.begin(edges(runs), counts), np.zeros(runs, bool)
    for _ in range(length):
        detector.observe(rng.normal(size=(1, runs)))
        crossed |= detector.capital.sum(axis=(1, 2)) >= LIMIT
    assert crossed.mean() <= length / LIMIT


def test_a_slow_shift_of_one_channel_is_found_and_named() -> None:
    rng = np.random.default_rng(0)
    detector = DriftDetector.begin(edges(20))
    detector.observe(rng.normal(size=(1000, 20)))
    assert detector.level < LIMIT
    shift = np.zeros(20)
    shift[7] = 1.0
    detector.observe(rng.normal(size=(400, 20)) + shift * np.linspace(0, 1.5, 400)[:, np.newaxis])
    assert detector.level > LIMIT
    assert int(np.argmax(detector.shares())) == 7


def test_a_wider_spread_is_found_though_the_mean_stays() -> None:
    rng = np.random.default_rng(0)
    detector = DriftDetector.begin(edges(1))
    detector.observe(rng.normal(size=(500, 1)))
    detector.observe(2.0 * rng.normal(size=(300, 1)))
    assert detector.level > LIMIT


def test_missing_readings_bet_nothing() -> None:
    detector = DriftDetector.begin(edges(2))
    detector.observe(np.full((50, 2), np.nan))
    assert detector.level == 0.0
    assert detector.counts.sum() == 0.0
