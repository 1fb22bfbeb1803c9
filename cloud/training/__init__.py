"""From normal data to a signed bundle.

The names below are imported at first use: the commands beside them must not pay for PyTorch to show their help.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloud.training.data import TableData, TrainingData
    from cloud.training.modalities import load_training_data, split_samples
    from cloud.training.samples.images import ImageData
    from cloud.training.settings import TrainingSettings
    from cloud.training.train import rebuild_bundle, train_bundle

__all__ = [
    "ImageData",
    "TableData",
    "TrainingData",
    "TrainingSettings",
    "load_training_data",
    "rebuild_bundle",
    "split_samples",
    "train_bundle",
]

_HOMES = {
    "data": ("TableData", "TrainingData"),
    "modalities": ("load_training_data", "split_samples"),
    "samples.images": ("ImageData",),
    "settings": ("TrainingSettings",),
    "train": ("rebuild_bundle", "train_bundle"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"cloud.training.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
