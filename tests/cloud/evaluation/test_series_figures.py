"""VUS-PR against aeon, affiliation against its defining integrals, and point scores from windows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.evaluation.affiliation import affiliation
from cloud.evaluation.series import best_f1, point_scores, series_figures
from cloud.evaluation.vus import vus_pr
from shared.errors import DataError


def flags(text: str) -> np.ndarray:
    return np.array([letter == "#" for letter in text])


def random_series(seed: int, points: int = 300) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.zeros(points, dtype=bool)
    for _ in range(4):
        start = int(generator.integers(0, points - 25))
        labels[start : start + int(generator.integers(1, 25))] = True
    if seed % 3 == 0:  # ranges at both ends, whose slopes are cut
        labels[[0, -1]] = True
    scores = generator.random(points) + 0.4 * labels
    return labels, np.round(scores, 1) if seed % 2 else scores


@pytest.mark.parametrize("seed", range(6))
def test_vus_pr_is_that_of_aeon(seed: int) -> None:
    peer = pytest.importorskip("aeon.benchmarking.metrics.anomaly_detection")
    labels, scores = random_series(seed)
    expected = peer.range_pr_vus_score(labels.astype(int), scores, max_buffer_size=40)
    assert vus_pr(labels, scores, 40) == pytest.approx(expected, abs=1e-9)


def test_vus_pr_forgives_a_late_alarm_a_little() -> None:
    labels = np.zeros(400, dtype=bool)
    labels[200:220] = True

    def alarm_at(start: int) -> float:
        scores = np.random.default_rng(0).random(400) * 0.1
        scores[start : start + 20] += 1.0
        return vus_pr(labels, scores)

    assert alarm_at(200) > alarm_at(215) > alarm_at(230) > alarm_at(380)
    assert vus_pr(labels, np.ones(400)) == 0.0
    with pytest.raises(DataError):
        vus_pr(np.zeros(400, dtype=bool), np.ones(400))


def by_hand(labels: np.ndarray, alarms: np.ndarray, parts: int = 40) -> tuple[float, float]:
    """Return affiliation precision and recall of one anomalous range on a fine time grid."""
    time = (np.arange(len(labels) * parts) + 0.5) / parts
    of = (time // 1).astype(int)
    anomalous, flagged = time[labels[of]], time[alarms[of]]

    def distance(points: np.ndarray, to: np.ndarray) -> np.ndarray:
        gaps = np.abs(points[:, None] - to[None, :]).min(axis=1)
        return np.where(gaps < 0.75 / parts, 0.0, gaps)

    everywhere = distance(time, anomalous)
    precision = np.mean([np.mean(everywhere >= gap) for gap in distance(flagged, anomalous)])
    gaps = distance(anomalous, flagged)
    recall = np.mean([np.mean(np.abs(time - at) >= gap) for at, gap in zip(anomalous, gaps, strict=True)])
    return float(precision), float(recall)


@pytest.mark.parametrize(
    ("labels", "alarms"),
    [
        ("...####.......", ".....##......."),
        ("...####.......", "..........##.."),
        ("..##..........", "#.......#...#."),
        ("########......", "..#...#......#"),
    ],
)
def test_affiliation_is_the_integral_it_is_defined_by(labels: str, alarms: str) -> None:
    found = affiliation(flags(labels), flags(alarms))
    precision, recall = by_hand(flags(labels), flags(alarms))
    assert found.precision == pytest.approx(precision, abs=0.02)
    assert found.recall == pytest.approx(recall, abs=0.02)


def test_affiliation_of_exact_and_of_no_alarms() -> None:
    labels = flags("..##......###....")
    exact = affiliation(labels, labels)
    assert (exact.precision, exact.recall, exact.f1) == (1.0, 1.0, 1.0)
    none = affiliation(labels, np.zeros_like(labels))
    assert (none.precision, none.recall, none.f1) == (0.0, 0.0, 0.0)
    one_of_two = affiliation(labels, flags("..##............."))
    assert one_of_two.precision == 1.0
    assert one_of_two.recall == pytest.approx(0.5)
    with pytest.raises(DataError):
        affiliation(np.zeros(5, dtype=bool), np.ones(5, dtype=bool))


@given(st.integers(0, 10_000))
def test_affiliation_is_symmetric_in_time(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels, alarms = generator.random(40) < 0.2, generator.random(40) < 0.2
    labels[7] = True
    there, back = affiliation(labels, alarms), affiliation(labels[::-1], alarms[::-1])
    assert there.precision == pytest.approx(back.precision)
    assert there.recall == pytest.approx(back.recall)
    assert 0.0 <= there.f1 <= 1.0


def test_points_get_the_mean_of_the_windows_that_hold_them() -> None:
    scores = point_scores(np.array([1.0, 3.0, 5.0]), np.array([0, 2, 6]), 4, 12)
    assert scores.tolist() == [1, 1, 2, 2, 3, 3, 5, 5, 5, 5, 5, 5]  # the last two are in no window
    huge = point_scores(np.array([1e300, 1.0]), np.array([0, 4]), 4, 8)
    assert huge[4:].tolist() == [1.0] * 4
    with pytest.raises(DataError, match="no usable window"):
        point_scores(np.zeros(0), np.zeros(0, dtype=np.intp), 4, 12)


def test_best_f1_and_the_threshold_that_gives_it() -> None:
    labels, scores = flags("..##.."), np.array([0.1, 0.2, 0.9, 0.5, 0.5, 0.0])
    best, threshold = best_f1(labels, scores)
    assert best == pytest.approx(0.8)
    assert threshold == 0.5
    assert series_figures(labels, scores)["f1"] == best


def test_affiliation_uses_its_own_best_threshold() -> None:
    """Affiliation F1 needs its own threshold: that of plain F1 fits one long range and misses all short ones."""
    labels, scores = np.zeros(2000, dtype=bool), np.random.default_rng(0).random(2000) * 0.1
    labels[100:600] = True
    scores[100:600] = 3.0
    for start in (900, 1200, 1500, 1800):
        labels[start : start + 5] = True
        scores[start : start + 5] = 1.0
    scores[1000:1030] = 1.5  # makes plain F1 prefer the high threshold
    figures = series_figures(labels, scores)
    assert figures["affiliation_f1"] > affiliation(labels, scores >= best_f1(labels, scores)[1]).f1 + 0.2
