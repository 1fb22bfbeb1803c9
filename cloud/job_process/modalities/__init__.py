"""One object per modality for training jobs: split of uploads and data from the store."""

from cloud.job_process.modalities.base import Collecting, JobModality, PayloadCollector, SplitData, StoredCollector
from cloud.job_process.modalities.image import JobImage
from cloud.job_process.modalities.series import JobSeries
from cloud.job_process.modalities.tabular import JobTabular
from cloud.job_process.modalities.video import JobVideo
from shared.modality import Modality

__all__ = [
    "DEFAULT_MODALITY",
    "Collecting",
    "JobModality",
    "PayloadCollector",
    "SplitData",
    "StoredCollector",
    "job_modality",
]

JOB_MODALITIES: dict[Modality, JobModality] = {
    each.name: each for each in (JobTabular(), JobSeries(), JobImage(), JobVideo())
}
DEFAULT_MODALITY = JobTabular.name  # of an upload that nobody named


def job_modality(name: Modality) -> JobModality:
    """Return the side of a modality that training jobs see."""
    return JOB_MODALITIES[name]
