"""Windows of sensor readings in a training job."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.evaluation_data import EvaluationData
from cloud.job_process.modalities.base import Collecting, JobModality, SplitData, StoredCollector, kept_count
from cloud.job_process.modalities.vectors import VectorCollector
from cloud.jobs.minimum import minimum_windows
from cloud.store.training_samples import ChosenSamples
from cloud.training.data import TableData
from shared.modality import Modality


class JobSeries(JobModality):
    """Windows, of which the newest normal ones are kept for the evaluation; an uploaded series is split in training."""

    name = Modality.SERIES

    def collector(self, chosen: ChosenSamples, how: Collecting) -> StoredCollector:
        """Return the collector of stored windows."""
        return _WindowCollector(chosen, how, (chosen.spec.window_length, len(chosen.spec.channels)))


class _WindowCollector(VectorCollector):
    def split(self, table: TableData, labels: NDArray[np.bool_]) -> SplitData:
        """Keep the windows apart, and evaluate on the newest."""
        training, evaluation = split_windows(table, table.rows[table.usable], labels[table.usable])
        spec = self._chosen.spec
        return SplitData(training, evaluation, spec.window_length, spec.window_stride)


def split_windows(
    data: TableData, windows: NDArray[np.float64], labels: NDArray[np.bool_]
) -> tuple[TableData, EvaluationData | None]:
    """Return separate windows (n, length, channels) as training data, and the evaluation on the newest normal ones.

    `data` gives everything but the rows. Each window is a run of usable rows of its own, so that no window is cut
    across two.
    """
    normal = np.flatnonzero(~labels)
    count = kept_count(len(normal), minimum_windows()) if labels.any() else 0
    kept = normal[len(normal) - count :]
    trained = np.setdiff1d(np.arange(len(windows)), kept)
    rows, usable = _apart(windows[trained])
    row_labels = np.repeat(labels[trained], windows.shape[1] + 1)
    training = dataclasses.replace(data, rows=rows, usable=usable, labels=row_labels if labels.any() else None)
    if not count:
        return training, None
    tested = np.sort(np.concatenate([kept, np.flatnonzero(labels)]))
    length = windows.shape[1]
    evaluation = EvaluationData(
        data.modality,
        len(tested),
        labels[tested],
        windows[tested].reshape(-1, windows.shape[2]),
        length,
        np.arange(len(tested)) * length,
        np.repeat(labels[tested], length),
        has_test_part=True,
    )
    return training, evaluation


def _apart(windows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the readings of windows with an unusable row after each, and which rows are usable."""
    count, length, channels = windows.shape
    rows = np.concatenate([windows, np.full((count, 1, channels), np.inf)], axis=1).reshape(-1, channels)
    usable = np.ones((count, length + 1), dtype=np.bool_)
    usable[:, -1] = False
    return rows, usable.reshape(-1)
