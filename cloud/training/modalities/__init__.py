"""One object per modality on the training side of the cloud.

`training_modality(name)` returns the object of a modality: reading and splitting the data, defaults of the head and its
distillation, encoder, teacher, and how its graphs are built. To add one, write its module and register it in the one
line below; its serving side is in `cloud.modalities`.
"""

from pathlib import Path

import numpy as np

from cloud.training.data import TrainingData
from cloud.training.modalities.base import GraphProfile, TrainingModality
from cloud.training.modalities.image import TrainingImage
from cloud.training.modalities.series import TrainingSeries
from cloud.training.modalities.tabular import TrainingTabular
from cloud.training.modalities.video import TrainingVideo
from cloud.training.samples import Split
from cloud.training.settings import DataSettings, TrainingSettings
from shared.diffusion.training import Progress
from shared.errors import DataError
from shared.modality import Modality

__all__ = [
    "TRAINING_MODALITIES",
    "GraphProfile",
    "TrainingModality",
    "load_training_data",
    "split_samples",
    "training_modality",
]

TRAINING_MODALITIES: dict[Modality, TrainingModality] = {
    each.name: each for each in (TrainingTabular(), TrainingSeries(), TrainingImage(), TrainingVideo())
}


def training_modality(name: Modality) -> TrainingModality:
    """Return the training side of a modality."""
    return TRAINING_MODALITIES[name]


def load_training_data(
    path: Path, modality: Modality, settings: DataSettings | None = None, *, to_judge: bool = False
) -> TrainingData:
    """Read and check the data at `path`; of images and videos, find the files, which are decoded later.

    `to_judge`: the data is for scoring, so it may hold anomalies only, a single row or a constant channel.
    Raises DataError for data that cannot be used.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder.")
    settings = settings if settings is not None else DataSettings()
    return training_modality(modality).find(path, settings, to_judge=to_judge)


def split_samples(data: TrainingData, settings: TrainingSettings, progress: Progress | None = None) -> Split:
    """Read the samples and split them by use. Raises DataError if there are too few normal ones."""
    generator = np.random.default_rng(settings.seed)
    return training_modality(data.modality).split(data, settings, generator, progress)
