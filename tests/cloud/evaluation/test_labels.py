"""The benchmark of labels on a small table: figures by number of labels, and their ratios."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cloud.evaluation import bench, labels_page
from cloud.evaluation.bench import BenchmarkOptions, run_benchmark
from cloud.evaluation.labels import BASELINES, measure_labels, ratios, series_stream, table_stream
from cloud.training.settings import TrainingSettings
from shared.errors import DataError


def small_table(folder: Path) -> Path:
    """A table whose second half has rare normal rows of another kind, and one kind of anomaly."""
    random = np.random.default_rng(4)
    rows = random.normal(size=(640, 4))
    rows[320::8] = random.normal(size=(40, 4)) * 0.3 + np.array([5.0, 0.0, 0.0, 0.0])
    anomalies = random.normal(size=(40, 4)) * 0.3 + np.array([0.0, 0.0, 4.5, 0.0])
    path = folder / "press.npz"
    np.savez(path, X=np.concatenate([rows, anomalies]), y=np.repeat([0, 1], [640, 40]))
    return path


def test_twenty_labels_remove_false_alarms_of_a_kind(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    path = small_table(tmp_path)
    stream = table_stream(path, seed=0)
    assert not stream.asked_labels.all()
    assert not {row.tobytes() for row in stream.judged} & {row.tobytes() for row in (*stream.train, *stream.asked)}
    figures, facts = measure_labels(stream, seed=0, effort=0.01)
    assert facts["labels_20"]["defects"] + facts["labels_20"]["false_alarms"] == 20
    before, after = (figures[f"labels_{count}"]["false_alarms_four_fifths"] for count in (0, 20))
    assert before > 0.05
    assert after < 0.5 * before
    assert figures["labels_0"]["learner_weight"] == 0.0 < figures["labels_20"]["learner_weight"]


def figures_of(before: float, after: float) -> dict[str, dict[str, float]]:
    shares = {f"false_alarms_{name}": 0.0 for name in ("equal", "half", "four_fifths")}
    facts = {"realised_rate": 0.01, "recall": 0.5}
    counts = {f"labels_{n}": dict.fromkeys(shares, after if n else before) | facts for n in (0, 10, 20, 50)}
    return counts | dict.fromkeys(BASELINES, shares)


def test_ratios_are_over_sets() -> None:
    sets = {"one": figures_of(0.4, 0.1), "two": figures_of(0.1, 0.1), "three": figures_of(0.0, 0.0)}
    found = ratios(sets)["labels_20"]
    assert found["false_alarms_equal_total"] == pytest.approx(0.4)
    assert found["false_alarms_equal_median"] == pytest.approx(0.625)
    found = ratios({"three": figures_of(0.0, 0.2)})["labels_20"]
    assert found["false_alarms_equal_total"] is found["false_alarms_equal_median"] is None, "over nothing"


def test_the_page_and_the_table_name_the_sets_of_the_ratios_and_the_failed_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = {"command": "vedette bench labels", "version": "1", "settings": {"effort": 1.0}, "seeds": [0]}
    for name, words in (("press", "1 sets that no choice was made on: press"), ("cardio", "they are no test: cardio")):
        sets = {name: figures_of(0.4, 0.1)}
        summary = labels_page.with_ratios({"sets": sets, "failed": {"few": "too few rows"}, **run})
        page = labels_page.page(summary)
        labels_page.show(summary)
        shown = " ".join(capsys.readouterr().out.split())
        for text in (page, shown):
            assert words in text
            assert "few: too few rows" in text
        assert "| 20 | 0.25 |" in page


def test_windows_of_a_series_that_overlap_are_in_one_part(tmp_path: Path) -> None:
    points = np.arange(640.0)[:, np.newaxis]
    labels = np.arange(640) > 600
    np.savez(tmp_path / "pump.npz", train=points, test=points, label=labels)
    stream = series_stream(tmp_path / "pump.npz")
    for one, other in ((stream.train, stream.held_out), (stream.asked, stream.judged)):
        assert len(one)
        assert not set(one.ravel()) & set(other.ravel())


def test_a_named_set_that_is_too_small_or_unusable_is_reported(tmp_path: Path) -> None:
    def options(*datasets: str) -> BenchmarkOptions:
        work, command = tmp_path / "work", "vedette bench labels"
        return BenchmarkOptions("labels", tmp_path, datasets, (0,), 1, work, TrainingSettings(), command)

    np.savez(tmp_path / "few.npz", X=np.zeros((500, 2)), y=np.repeat([0, 1], [490, 10]))
    with pytest.raises(DataError, match="every set is too small"):
        run_benchmark(options())
    np.savez(tmp_path / "torn.npz", X=np.zeros((500, 2)), y=np.full(500, 2))
    with pytest.raises(DataError, match="Every set failed; few: fewer than 400 normal rows or 20 anomalies"):
        run_benchmark(options("few", "torn"))
    small_table(tmp_path)
    for named, broken in (((), {"torn"}), (("press", "few", "torn"), {"few", "torn"})):
        usable, _, found = bench._checked_sets(options(*named))
        assert [item.name for item in usable] == ["press"]
        assert set(found) == broken
