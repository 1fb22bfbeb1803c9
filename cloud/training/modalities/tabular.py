"""Table rows in training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.methods.encoders import Encoder
from cloud.serving.encoding import Samples
from cloud.training.data import TableData, TrainingData, read_table_data
from cloud.training.judgement.vectors import COPIES, ROW_CORRUPTIONS, corrupted_vectors, measured_channels
from cloud.training.modalities.base import TrainingVectors
from cloud.training.samples import Split, modes_in, random_shares, with_anomalies
from cloud.training.settings import DataSettings, TrainingSettings
from shared.bundle import InputSpec
from shared.diffusion.distillation import DistillationSettings
from shared.diffusion.training import Progress
from shared.modality import Modality
from shared.preprocessing import mask_width

WEIGHING_COPIES = 1000


class TrainingTabular(TrainingVectors):
    """Rows of a table, split at random."""

    name = Modality.TABULAR
    distillation = DistillationSettings(steps=2000, batch_size=256, perturbed=40_000, max_seconds=90.0)
    folds = 10
    worth_exponent = 2.0
    sample_word = "rows"

    def find(self, path: Path, settings: DataSettings, *, to_judge: bool) -> TrainingData:
        """Read the table at `path`. Raises DataError for data that cannot be used."""
        return read_table_data(path, self.name, settings, to_judge=to_judge)

    def split(
        self,
        data: TrainingData,
        settings: TrainingSettings,
        generator: np.random.Generator,
        progress: Progress | None,
    ) -> Split:
        """Draw the held-out part of the normal rows at random; the test part is that and the anomalous rows."""
        assert isinstance(data, TableData)
        labels = data.labels if data.labels is not None else np.zeros(len(data.rows), dtype=np.bool_)
        normal = data.rows[data.usable & ~labels]
        anomalous = data.rows[data.usable & labels]
        train, held_out = random_shares(len(normal), settings, generator, data.origin, "normal rows")
        test, test_labels = with_anomalies(normal[held_out], anomalous)
        spec = InputSpec(
            channels=data.columns,
            missing=data.missing,
            categories=dict(data.categories),
            decimal=data.decimal,
            **modes_in(data.columns, data.mode_column, normal[train]),
        )
        return Split(spec, normal[train], normal[held_out], test, test_labels, data.notes)

    def weighing_copies(self, encoder: Encoder | None, held_out: Samples, seed: int) -> Samples | None:
        """Return copies of held-out rows with broken relations; None for rows of a single feature.

        Each copy has a random share of its features, at least one, drawn from their marginals: from other rows, each
        feature from another one, a missing value like any other. Texts and the mode stay. The share is log-uniform.
        """
        spec = held_out.preprocessor.spec
        features = np.array([spec.value_channels.index(spec.channels[i]) for i in measured_channels(spec)])
        if len(features) < 2 or len(held_out) < 2:
            return None
        generator = np.random.default_rng([seed % 2**32, len(held_out)])
        shape = (WEIGHING_COPIES, len(features))
        share = len(features) ** -generator.random((WEIGHING_COPIES, 1))
        is_changed = generator.random(shape) < share
        is_changed[np.arange(WEIGHING_COPIES), generator.integers(0, len(features), WEIGHING_COPIES)] = True
        copies = held_out.at(generator.integers(0, len(held_out), WEIGHING_COPIES))
        others, inputs = generator.integers(0, len(held_out), shape), copies.inputs.copy()
        for columns in (features, features + mask_width(spec))[: 2 if mask_width(spec) else 1]:
            inputs[:, columns] = np.where(is_changed, held_out.inputs[others, columns], inputs[:, columns])
        return replace(copies, inputs=inputs)

    def corrupted_copies(self, normal: NDArray[Any], spec: InputSpec, seed: int) -> dict[str, NDArray[Any]]:
        """Return copies of normal rows with far values, values of other rows and broken correlations."""
        return dict(corrupted_vectors(ROW_CORRUPTIONS, normal, spec, COPIES, seed))
