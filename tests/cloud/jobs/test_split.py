"""Split of a job's samples, and the least numbers that training really accepts."""

import dataclasses

import numpy as np
import pytest

from cloud.job_process.modalities.base import kept_count
from cloud.job_process.modalities.series import split_windows
from cloud.job_process.modalities.tabular import split_rows
from cloud.jobs.minimum import minimum_normals, minimum_windows, stored_shortage, upload_shortage
from cloud.training.data import TableData
from cloud.training.modalities import split_samples
from cloud.training.settings import TrainingSettings
from shared.errors import DataError
from shared.modality import Modality


def table(normal: int, anomalous: int = 0, modality: Modality = Modality.TABULAR) -> TableData:
    rows = np.random.default_rng(2).normal(size=(normal + anomalous, 3))
    labels = np.arange(normal + anomalous) >= normal if anomalous else None
    return TableData(modality, "press", ("a", "b", "c"), rows, np.ones(len(rows), dtype=np.bool_), labels)


def test_no_row_is_in_training_and_evaluation() -> None:
    data = table(400, 30)
    split = split_rows(data, 0)
    assert split.evaluation is not None
    assert split.evaluation.labels is not None
    assert (split.evaluation.count, int(split.evaluation.labels.sum())) == (130, 30)
    trained = {tuple(row) for row in split.training.rows[split.training.usable & ~split.training.labels]}
    tested = {tuple(row) for row in split.evaluation.readings[~split.evaluation.labels]}
    assert (len(trained), len(tested), trained & tested) == (300, 100, set())
    assert split_rows(table(400), 0).evaluation is None, "nothing to measure without an anomaly"
    assert split_rows(table(70, 5), 0).evaluation is None, "training needs them all"
    assert kept_count(85, 40) == 5


def test_windows_stay_apart_and_the_newest_are_evaluated() -> None:
    windows = np.random.default_rng(3).normal(size=(400, 8, 3))
    labels = np.zeros(400, dtype=np.bool_)
    labels[[5, 390]] = True
    data = table(1, modality=Modality.SERIES)
    training, evaluation = split_windows(data, windows, labels)
    assert evaluation is not None
    (blocks,) = evaluation.blocks()
    assert len(blocks) == 102
    np.testing.assert_array_equal(blocks[0], windows[5])
    np.testing.assert_array_equal(blocks[-1], windows[399])
    settings = TrainingSettings().changed({"series": {"window_length": 8}})
    split = split_samples(training, settings)
    known = {window.tobytes() for window in windows[~labels][:-100]}
    found = [window.tobytes() for window in (*split.train, *split.held_out)]
    assert len(found) >= len(known) - 1, "a window at the boundary may be cut"
    assert set(found) <= known, "no window is made of two"
    assert split.test_labels is not None
    assert split.test_labels.sum() == 2


@pytest.mark.parametrize("lacking", [0, 1])
def test_the_least_numbers_are_those_of_training(lacking: int) -> None:
    least = minimum_normals()
    windows = np.random.default_rng(3).normal(size=(minimum_windows() - lacking, 8, 3))
    series, _ = split_windows(table(1, modality=Modality.SERIES), windows, np.zeros(len(windows), dtype=np.bool_))
    settings = TrainingSettings().changed({"series": {"window_length": 8}})
    if not lacking:
        split_samples(table(least), settings)
        split_samples(series, settings)
        assert upload_shortage(Modality.TABULAR, least) == ""
        return
    with pytest.raises(DataError, match="at least 40 are needed"):
        split_samples(table(least - 1), settings)
    assert upload_shortage(Modality.TABULAR, least - 1) == (
        "39 normal rows, and training needs at least 40: 1 more are needed."
    )
    assert stored_shortage(Modality.VIDEO, 500).startswith("Clips of the store cannot be trained on")
    assert stored_shortage(Modality.SERIES, 60).endswith("8 more are needed.")
    fewer = dataclasses.replace(series, rows=series.rows[: 9 * 60], usable=series.usable[: 9 * 60])
    with pytest.raises(DataError, match="20 are needed"):
        split_samples(fewer, settings)
