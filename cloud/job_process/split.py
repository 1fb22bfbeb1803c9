"""Split of a job's samples: some are kept from training, so that the evaluation sees none that was learned from."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.evaluation_data import EvaluationData
from cloud.jobs.minimum import minimum_normals, minimum_windows
from cloud.training.data import TableData
from shared.modality import Modality

TEST_SHARE = 0.25  # of the normal samples


@dataclass(frozen=True, slots=True)
class JobSplit:
    """Data to train on, and data to evaluate on; None where that is read from the same files, or there is no label."""

    training: TableData
    evaluation: EvaluationData | None


def kept_count(normals: int, least: int) -> int:
    """Return how many normal samples to keep for the evaluation: a quarter, while training has twice its minimum."""
    return min(round(normals * TEST_SHARE), max(0, normals - 2 * least))


def split_rows(data: TableData, seed: int) -> JobSplit:
    """Keep normal rows, drawn at random, and all anomalous rows for the evaluation."""
    if data.labels is None or not data.labels[data.usable].any():
        return JobSplit(data, None)
    normal = np.flatnonzero(data.usable & ~data.labels)
    count = kept_count(len(normal), minimum_normals(Modality.TABULAR))
    if not count:
        return JobSplit(data, None)
    kept = np.random.default_rng(seed).permutation(normal)[:count]
    tested = np.sort(np.concatenate([kept, np.flatnonzero(data.usable & data.labels)]))
    usable = data.usable.copy()
    usable[kept] = False
    evaluation = EvaluationData(
        data.modality,
        len(tested),
        data.labels[tested],
        data.rows[tested],
        has_test_part=True,
        row_numbers=data.numbers()[tested],
    )
    return JobSplit(dataclasses.replace(data, usable=usable), evaluation)


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
