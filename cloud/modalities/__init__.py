"""One object per modality on the serving side of the cloud.

`cloud_modality(name)` returns the object of a modality. To add one, write its module and register it in the one line
below. Each object answers what the service, the console and the evaluation need to know: the encoder, the pooling,
the explanation and the view. The needs of training (defaults, reading, splitting, the teacher) are in
`cloud.training.modalities`, one module per modality again: the service's process must not import what fits.

Nothing here imports PyTorch at module level, so the commands and the console may import this package for free.
"""

from cloud.modalities.base import CloudModality, VectorModality, View
from cloud.modalities.image import Image
from cloud.modalities.series import Series
from cloud.modalities.tabular import Tabular
from cloud.modalities.video import Video
from shared.modality import Modality

__all__ = [
    "CLOUD_MODALITIES",
    "CloudModality",
    "VectorModality",
    "View",
    "cloud_modality",
    "table_modality",
    "vector_modality",
]

CLOUD_MODALITIES: dict[Modality, CloudModality] = {each.name: each for each in (Tabular(), Series(), Image(), Video())}


def cloud_modality(name: Modality) -> CloudModality:
    """Return the serving side of a modality."""
    return CLOUD_MODALITIES[name]


def table_modality(*, has_times: bool) -> Modality:
    """Return the modality of a table without a word on it: readings of a series if its rows have times."""
    return Series.name if has_times else Tabular.name


def vector_modality(name: Modality) -> VectorModality:
    """Return the serving side of a modality whose graph inputs are vectors. Raises TypeError for another modality."""
    modality = cloud_modality(name)
    if not isinstance(modality, VectorModality):
        raise TypeError(f"{name} samples become patches, not vectors.")
    return modality
