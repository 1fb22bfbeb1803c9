"""The benchmark of labels on a small table: figures by number of labels, and their ratios."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cloud.evaluation import bench
from cloud.evaluation.bench import BenchmarkOptions, run_benchmark
from cloud.evaluation.labels import measure_labels, ratios, table_stream
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


def test_ratios_are_over_sets() -> None:
    def figures(before: float, after: float) -> dict[str, dict[str, float]]:
        keys = [f"false_alarms_{name}" for name in ("equal", "half", "four_fifths")]
        return {f"labels_{n}": dict.fromkeys(keys, after if n else before) for n in (0, 10, 20, 50)}

    found = ratios({"one": figures(0.4, 0.1), "two": figures(0.1, 0.1), "three": figures(0.0, 0.0)})["labels_20"]
    assert found["false_alarms_equal_total"] == pytest.approx(0.4)
    assert found["false_alarms_equal_median"] == pytest.approx(0.625)


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
