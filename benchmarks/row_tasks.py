"""Labelled tables for development: data that comes with Python packages, and real sets if they are present.

A one-class task is made from classes: either one class is normal, or one class is the anomaly.
"""

import csv
import gzip
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.data_folder import data_folder

MAX_ROWS = 3000
RARE_DIGITS, RARE_SURFACES = (2, 4, 9), (1, 3, 6)  # one task per class: this class is the anomaly
PLANT_FAULTS = (5, 10, 11, 16, 19, 20)  # faults that are neither trivial nor hidden in the noise
FAULT_START = 160  # first faulty row of a test run
SHUTTLE_ROWS = 6000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RowTask:
    """Labelled table: `rows` (n, features) and `kinds` (n,), the class of each row, 0 for normal."""

    name: str
    rows: Floats
    kinds: NDArray[np.int64]

    @property
    def group(self) -> str:
        """Name of the data behind the task; means are taken within a group first."""
        return self.name.rstrip("0123456789")


def packaged_tasks() -> Iterator[RowTask]:
    """Yield tasks of digits, surfaces and phishing sites, with each class once as the normal one."""
    for group, (rows, labels) in _packaged().items():
        classes, kinds = np.unique(labels, return_inverse=True)
        for normal in range(len(classes)):
            yield RowTask(f"{group}{normal}", rows, np.where(kinds == normal, 0, kinds + 1))


def development_tasks() -> Iterator[RowTask]:
    """Yield the tasks on which defaults for rows are chosen, of other origin than the benchmarks'.

    These are packaged sets with one normal class or one rare class, river's bananas and the shuttle set, and faults of
    the Tennessee Eastman process if its folder is present.
    """
    yield from (task for task in packaged_tasks() if task.name in _ONE_CLASS)
    for group, rare in (("digits", RARE_DIGITS), ("segments", RARE_SURFACES)):
        rows, labels = _packaged()[group]
        kinds = np.unique(labels, return_inverse=True)[1]
        for kind in rare:
            yield RowTask(f"rare_{group}{kind}", rows, (kinds == kind).astype(np.int64))
    yield from _bananas()
    yield _shuttle()
    yield from _plant()


def adbench_tasks() -> Iterator[RowTask]:
    """Yield the ADBench sets, at most MAX_ROWS rows of each; none if the folder is absent.

    Sets with fewer than 300 normals or 40 anomalies among these rows are skipped.
    """
    for path in sorted((data_folder() / "adbench" / "Classical").glob("*.npz")):
        with np.load(path) as arrays:
            rows, kinds = arrays["X"].astype(np.float64), arrays["y"].astype(np.int64)
        chosen = np.random.default_rng(0).permutation(len(rows))[:MAX_ROWS]
        if np.count_nonzero(kinds[chosen] == 0) >= 300 and np.count_nonzero(kinds[chosen]) >= 40:
            yield RowTask(path.stem.partition("_")[2], rows[chosen], kinds[chosen])


_ONE_CLASS = ("digits0", "digits3", "digits8", "segments1", "segments4", "phishing0", "phishing1")


def _packaged() -> dict[str, tuple[Floats, NDArray[np.generic]]]:
    """Return rows and class labels by group."""
    from river import datasets
    from sklearn.datasets import load_digits

    digits = load_digits()
    return {
        "digits": (digits.data.astype(np.float64), digits.target),
        "segments": _river_rows(datasets.ImageSegments()),
        "phishing": _river_rows(datasets.Phishing()),
    }


def _river_rows(samples: Iterable[tuple[Mapping[str, float], object]]) -> tuple[Floats, NDArray[np.generic]]:
    found = list(samples)
    rows = np.array([list(row.values()) for row, _ in found], dtype=np.float64)
    return rows, np.array([str(kind) for _, kind in found])


def _bananas() -> Iterator[RowTask]:
    from river import datasets

    rows, labels = _river_rows(datasets.Bananas())
    for normal, kind in enumerate(np.unique(labels)):
        yield RowTask(f"bananas{normal}", rows, (labels != kind).astype(np.int64))


def _shuttle() -> RowTask:
    """Return a task of the first SHUTTLE_ROWS rows of river's shuttle set."""
    import river.datasets

    path = Path(str(river.datasets.__file__)).parent / "shuttle.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = np.array(list(csv.reader(lines))[1 : SHUTTLE_ROWS + 1], dtype=np.float64)
    return RowTask("shuttle", rows[:, :-1], rows[:, -1].astype(np.int64))


def _plant() -> Iterator[RowTask]:
    path = data_folder() / "tep" / "tep.npz"
    if not path.is_file():
        return
    with np.load(path) as arrays:
        normal = np.concatenate([arrays["d00_train"], arrays["d00_test"]])
        for fault in PLANT_FAULTS:
            faulty = arrays[f"d{fault:02d}_test"][FAULT_START:]
            kinds = np.repeat([0, 1], [len(normal), len(faulty)])
            yield RowTask(f"plant{fault}", np.concatenate([normal, faulty]), kinds)
