"""Rows and windows of readings from the store, as one table."""

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from cloud.job_process.modalities.base import Collecting, SplitData
from cloud.store.training_samples import ChosenSamples
from cloud.training.data import TableData
from shared.samples import Values
from shared.wire import decode_payload
from vedette.v1 import sample_pb2


class VectorCollector:
    """Collector of samples of one shape; those of another shape are left out."""

    def __init__(self, chosen: ChosenSamples, how: Collecting, shape: tuple[int, ...]) -> None:
        self._chosen, self._how, self._shape = chosen, how, shape
        self._values: list[Values] = []
        self._labels: list[bool] = []

    def add(self, number: int, payload: sample_pb2.Payload, *, is_anomalous: bool) -> None:
        """Decode one sample. Raises SampleRejected."""
        decoded = decode_payload(payload, self._chosen.modality)
        if decoded.shape == self._shape:
            self._values.append(decoded)
            self._labels.append(is_anomalous)

    def data(self) -> SplitData:
        """Return the samples as a table, split for the evaluation."""
        spec, name = self._chosen.spec, self._how.name
        labels = np.array(self._labels, dtype=np.bool_)
        values = np.stack(self._values).astype(np.float64) if self._values else np.empty((0, *self._shape))
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        table = TableData(
            self._chosen.modality,
            name,
            spec.channels,
            values,
            np.asarray(finite | spec.missing, dtype=np.bool_),
            labels if labels.any() else None,
            missing=spec.missing,
            mode_column=spec.mode_channel,
            categories=dict(spec.categories),
            decimal=spec.decimal,
            notes=(f"samples of {name} from the store, as devices sent them",),
        )
        return self.split(table, labels)

    @abstractmethod
    def split(self, table: TableData, labels: NDArray[np.bool_]) -> SplitData:
        """Return the data of a table whose `rows` are samples (n, ...) with labels (n,)."""
