"""Clips of video in a training job."""

from cloud.job_process.modalities.base import Collecting, JobModality, StoredCollector
from cloud.modalities import cloud_modality
from cloud.store.training_samples import ChosenSamples
from shared.errors import DataError
from shared.modality import Modality


class JobVideo(JobModality):
    """Clips, which devices send one by one and training cuts out of whole videos."""

    name = Modality.VIDEO

    def collector(self, chosen: ChosenSamples, how: Collecting) -> StoredCollector:
        """Raise DataError: stored clips cannot be trained on."""
        raise DataError(cloud_modality(self.name).store_refusal)
