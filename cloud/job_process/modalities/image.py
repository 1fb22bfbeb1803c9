"""Images in a training job."""

import numpy as np

from cloud.job_process.modalities.base import Collecting, JobModality, SplitData, StoredCollector, kept_count
from cloud.jobs.minimum import minimum_normals
from cloud.store.training_samples import ChosenSamples
from cloud.training.modalities import load_training_data
from shared.errors import DataError
from shared.images import encode_png
from shared.modality import Modality
from shared.wire import decode_payload
from vedette.v1 import sample_pb2

_SUFFIXES = {sample_pb2.PAYLOAD_ENCODING_PNG: ".png", sample_pb2.PAYLOAD_ENCODING_JPEG: ".jpg"}


class JobImage(JobModality):
    """Images, whose folders say what is trained on and what is evaluated."""

    name = Modality.IMAGE

    def collector(self, chosen: ChosenSamples, how: Collecting) -> StoredCollector:
        """Return the collector of stored images."""
        return _ImageFiles(chosen, how)


class _ImageFiles:
    """Writer of whole images as files of a labelled folder; crops and previews are left out."""

    def __init__(self, chosen: ChosenSamples, how: Collecting) -> None:
        self._folder = how.folder / "data"
        normals = chosen.normals
        count = kept_count(len(normals), minimum_normals()) if chosen.anomalies else 0
        self._tested = set(normals[len(normals) - count :])

    def add(self, number: int, payload: sample_pb2.Payload, *, is_anomalous: bool) -> None:
        """Write one image. Raises SampleRejected."""
        if payload.HasField("crop"):
            return
        kind = "test/defect" if is_anomalous else "test/good" if number in self._tested else "train/good"
        target = self._folder / kind
        target.mkdir(parents=True, exist_ok=True)
        suffix = _SUFFIXES.get(payload.encoding)
        if suffix is not None:
            (target / f"{number}{suffix}").write_bytes(payload.data)
        else:
            pixels = decode_payload(payload, JobImage.name).astype(np.uint8)
            (target / f"{number}.png").write_bytes(encode_png(pixels))

    def data(self) -> SplitData:
        """Return the images found in the folder. Raises DataError if none is whole."""
        if not (self._folder / "train" / "good").is_dir():
            raise DataError(
                "None of the stored images is whole: devices sent crops or previews. Raise their byte budget."
            )
        return SplitData(load_training_data(self._folder, JobImage.name), folder=self._folder)
