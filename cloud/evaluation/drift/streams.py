"""Streams of the drift benchmark: the rows of a data set in file order, with their anomalies in place.

Tables (ADBench): the first half of the normal rows in file order is the training data, and all other rows are the
stream. Sets of more than MAX_ROWS rows are thinned evenly, at random, in order. Series (SMD): `train` and `test` of
each machine. Plant (TEP): a normal run for training; the other normal run and the runs with faults are the stream.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.protocols import arrays_in, find_sets, rows_and_labels, series_split
from shared.errors import SettingsError
from shared.modality import Modality

MAX_ROWS = 20_000
PLANT_FAULTS = (1, 2, 5, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20)
FAULT_START = 160  # first faulty row of a run of the plant
FAMILIES = ("adbench", "smd", "tep")


@dataclass(frozen=True, slots=True)
class OrderedData:
    """Training rows (n, channels), and the rows (m, channels) and labels (m,) of the stream, in order."""

    train: NDArray[np.float64]
    rows: NDArray[np.float64]
    labels: NDArray[np.bool_]
    modality: Modality


@dataclass(frozen=True, slots=True)
class StreamSource:
    """Data of a stream: its family, name, and file."""

    family: str
    name: str
    path: Path

    @property
    def key(self) -> str:
        """Name that is unique among all families and valid as that of a file."""
        return f"{self.family}-{self.name.replace('/', '_')}"

    def read(self) -> OrderedData:
        """Return the stream; raises DataError for unusable data."""
        return _READERS[self.family](self.path)


def find_streams(data: Path, families: Sequence[str]) -> Iterator[StreamSource]:
    """Yield the streams of the families that the folder holds; raises SettingsError for an unknown family."""
    if unknown := set(families) - set(FAMILIES):
        raise SettingsError(f"--families: there is no {min(unknown)!r}; give some of {', '.join(FAMILIES)}.")
    for family, benchmark in (("adbench", "adbench"), ("smd", "series")):
        if family in families and (data / family).is_dir():
            for item in find_sets(benchmark, data / family):
                yield StreamSource(family, item.name, item.path)
    plant = data / "tep" / "tep.npz"
    if "tep" in families and plant.is_file():
        yield StreamSource("tep", "plant", plant)


def _table(path: Path) -> OrderedData:
    rows, labels = rows_and_labels(path)
    if len(rows) > MAX_ROWS:
        kept = np.sort(np.random.default_rng(0).choice(len(rows), MAX_ROWS, replace=False))
        rows, labels = rows[kept], labels[kept]
    normal = np.flatnonzero(~labels)
    train = normal[: round(len(normal) / 2)]
    rest = np.setdiff1d(np.arange(len(rows)), train)
    return OrderedData(rows[train], rows[rest], labels[rest], Modality.TABULAR)


def _series(path: Path) -> OrderedData:
    split = series_split(path)
    return OrderedData(split.train, split.test, split.labels, Modality.SERIES)


def _plant(path: Path) -> OrderedData:
    names = [f"d{fault:02d}_test" for fault in (0, *PLANT_FAULTS)]
    arrays = {name: values.astype(np.float64) for name, values in arrays_in(path, ("d00_train", *names)).items()}
    train, runs = arrays["d00_train"], [arrays[name] for name in names]
    labels = [np.arange(len(run)) >= (FAULT_START if place else len(run)) for place, run in enumerate(runs)]
    return OrderedData(train, np.concatenate(runs), np.concatenate(labels), Modality.TABULAR)


_READERS = {"adbench": _table, "smd": _series, "tep": _plant}
