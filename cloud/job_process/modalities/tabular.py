"""Rows of a table in a training job."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.evaluation_data import EvaluationData
from cloud.job_process.modalities.base import Collecting, JobModality, SplitData, StoredCollector, kept_count
from cloud.job_process.modalities.vectors import VectorCollector
from cloud.jobs.minimum import minimum_normals
from cloud.store.training_samples import ChosenSamples
from cloud.training.data import TableData, TrainingData
from shared.modality import Modality


class JobTabular(JobModality):
    """Rows, whose normal ones are kept for the evaluation at random."""

    name = Modality.TABULAR

    def split_upload(self, data: TrainingData, seed: int) -> SplitData:
        """Keep normal rows, drawn at random, and all anomalous rows for the evaluation."""
        assert isinstance(data, TableData)
        return split_rows(data, seed)

    def collector(self, chosen: ChosenSamples, how: Collecting) -> StoredCollector:
        """Return the collector of stored rows."""
        return _RowCollector(chosen, how, (len(chosen.spec.channels),))


class _RowCollector(VectorCollector):
    def split(self, table: TableData, labels: NDArray[np.bool_]) -> SplitData:
        """Split as an upload."""
        return split_rows(table, self._how.seed)


def split_rows(data: TableData, seed: int) -> SplitData:
    """Keep normal rows, drawn at random, and all anomalous rows for the evaluation."""
    if data.labels is None or not data.labels[data.usable].any():
        return SplitData(data, None)
    normal = np.flatnonzero(data.usable & ~data.labels)
    count = kept_count(len(normal), minimum_normals())
    if not count:
        return SplitData(data, None)
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
    return SplitData(dataclasses.replace(data, usable=usable), evaluation)
