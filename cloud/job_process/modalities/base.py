"""The side of a modality that a training job sees: split of an upload, and data from stored samples."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from cloud.evaluation.evaluation_data import EvaluationData
from cloud.store.training_samples import ChosenSamples
from cloud.training.data import TrainingData
from shared.modality import Modality
from vedette.v1 import sample_pb2

TEST_SHARE = 0.25  # of the normal samples


@dataclass(frozen=True, slots=True)
class SplitData:
    """Data to train on and to evaluate on.

    `evaluation`: None where it is read from the same files, or there is no label. `window_length`, `window_stride`: of
    stored windows, else 0. `folder`: of images, which holds both parts.
    """

    training: TrainingData
    evaluation: EvaluationData | None = None
    window_length: int = 0
    window_stride: int = 0
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Collecting:
    """How stored samples are collected: `name` of the new bundle, `seed` of a split, `folder` for files of images."""

    name: str
    seed: int
    folder: Path


class PayloadCollector(Protocol):
    """Collector of stored samples."""

    def add(self, number: int, payload: sample_pb2.Payload, *, is_anomalous: bool) -> None:
        """Take one sample; one of another form is left out. Raises SampleRejected if it cannot be decoded."""
        ...


class StoredCollector(PayloadCollector, Protocol):
    """Collector of the stored samples of one job."""

    def data(self) -> SplitData:
        """Return the data of all samples taken. Raises DataError if none of them can be used."""
        ...


class JobModality(ABC):
    """A modality as a training job sees it."""

    name: ClassVar[Modality]

    def split_upload(self, data: TrainingData, seed: int) -> SplitData:
        """Keep some samples of an upload from training, so that the evaluation sees none that was learned from."""
        return SplitData(data)

    @abstractmethod
    def collector(self, chosen: ChosenSamples, how: Collecting) -> StoredCollector:
        """Return the collector of stored samples. Raises DataError where they cannot be trained on."""


def kept_count(normals: int, least: int) -> int:
    """Return how many normal samples to keep for the evaluation: a quarter, while training has twice its minimum."""
    return min(round(normals * TEST_SHARE), max(0, normals - 2 * least))
