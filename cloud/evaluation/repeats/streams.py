"""Streams with recurring anomalies: server machines as they were recorded, and tables whose anomalies are repeated."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.protocols import find_sets, is_table, rows_and_labels, series_split
from shared.errors import DataError

RECORDED, REPEATED = "recorded", "repeated"
MAX_TRAINING_ROWS = 8000
MIN_TABLE_ROWS, MAX_TABLE_ROWS, MAX_FEATURES, MIN_DEFECTS = 1500, 25_000, 100, 60
DEFECTS, RECURRENCES, BURST = 8, 50, 10
NOISE = 0.1  # of a feature's deviation among normal rows
_SUITABLE = (
    f"{MIN_TABLE_ROWS:,} to {MAX_TABLE_ROWS:,} rows of at most {MAX_FEATURES} features with {MIN_DEFECTS} anomalies"
)


@dataclass(frozen=True)
class RecurringStream:
    """Rows of one source.

    `train`: normal rows (n, features). `rows`: (m, features) in the order of time. `incidents`: (m,) number of the
    incident of each anomalous row, from 1; 0 for normal ones.
    """

    name: str
    kind: str
    train: NDArray[np.float64]
    rows: NDArray[np.float64]
    incidents: NDArray[np.intp]


def streams(folder: Path, wanted: Sequence[str] = ()) -> list[RecurringStream]:
    """Return the streams of a data folder, recorded ones first.

    `wanted`: names of the sets, as in `find_sets`; by default all that suit. Raises DataError for an unusable set, for
    a wanted table that does not suit, and if no stream is left; SettingsError for a wanted set that does not exist.
    """
    found = []
    for item in sorted(find_sets("labels", folder, wanted), key=lambda item: is_table(item.path)):
        stream = repeated(item.name, item.path) if is_table(item.path) else recorded(item.name, item.path)
        if stream is not None:
            found.append(stream)
        elif wanted:
            raise DataError(f"{item.path}: {_SUITABLE} are needed.")
    if not found:
        raise DataError(f"{folder}: no series with labels and no table that suits: {_SUITABLE} are needed.")
    return found


def recorded(name: str, path: Path) -> RecurringStream:
    """Return the readings of a series file in their order; each run of labels is an incident."""
    split = series_split(path)
    step = max(1, len(split.train) // MAX_TRAINING_ROWS)
    begins = np.diff(np.r_[0, split.labels.astype(int)]) == 1
    incidents = np.where(split.labels, np.cumsum(begins), 0)
    return RecurringStream(name, RECORDED, split.train[::step], split.test, incidents)


def repeated(name: str, path: Path) -> RecurringStream | None:
    """Return normal rows with DEFECTS anomalies, each RECURRENCES times in bursts, with noise; None if unsuitable."""
    values, labels = rows_and_labels(path)
    normal, anomalous = np.flatnonzero(~labels), np.flatnonzero(labels)
    suits = MIN_TABLE_ROWS <= len(values) <= MAX_TABLE_ROWS and values.shape[1] <= MAX_FEATURES
    if not suits or len(anomalous) < MIN_DEFECTS:
        return None
    random = np.random.default_rng(zlib.crc32(name.encode()))
    train, rest = normal[: len(normal) // 2][:MAX_TRAINING_ROWS], normal[len(normal) // 2 :]
    scale = values[train].std(axis=0)
    chosen = random.choice(anomalous, DEFECTS, replace=False)
    bursts = random.permutation(np.repeat(np.arange(DEFECTS), RECURRENCES // BURST))
    places = np.sort(random.integers(len(rest) // 10, len(rest), len(bursts)))
    rows, incidents, start = [], [], 0
    for number, (defect, place) in enumerate(zip(bursts.tolist(), places.tolist(), strict=True), start=1):
        noise = random.normal(size=(BURST, values.shape[1])) * NOISE * scale
        rows += [values[rest[start:place]], values[chosen[defect]] + noise]
        incidents += [np.zeros(place - start, np.intp), np.full(BURST, number, np.intp)]
        start = place
    rows.append(values[rest[start:]])
    incidents.append(np.zeros(len(rest) - start, np.intp))
    return RecurringStream(name, REPEATED, values[train], np.concatenate(rows), np.concatenate(incidents))
