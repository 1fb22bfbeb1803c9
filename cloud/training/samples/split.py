"""Samples of a training run by use, and how rows and images are drawn for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.training.settings import TrainingSettings
from shared.bundle import InputSpec
from shared.calibration import MIN_CALIBRATION_SIZE, MIN_TRAINING_SIZE
from shared.errors import DataError

MIN_TRAIN = MIN_TRAINING_SIZE


@dataclass(frozen=True, slots=True)
class SampleRate:
    """Samples that a source gives in a day, and the origin of this figure in words."""

    per_day: float
    origin: str


@dataclass(frozen=True, slots=True)
class Split:
    """Samples by use.

    Samples are rows (n, features), windows (n, length, channels), images (n, height, width, 3) uint8 or clips
    (n, frames, height, width, 3) uint8. `train` and `held_out` are normal. `test_labels`: (n,) bool of `test`, true for
    anomalies; both are None without labelled samples. `held_out_order`: (n,) place of each held-out sample in the data;
    None: they are in the order of the data. `rate`: rate of the source, None if the data does not tell it.
    """

    spec: InputSpec
    train: NDArray[Any]
    held_out: NDArray[Any]
    test: NDArray[Any] | None
    test_labels: NDArray[np.bool_] | None
    notes: tuple[str, ...]
    held_out_order: NDArray[np.intp] | None = None
    rate: SampleRate | None = None


def random_shares(
    count: int, settings: TrainingSettings, generator: np.random.Generator, origin: str, what: str
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return positions of the training and of the held-out part, drawn at random; raise DataError for too few."""
    if count < MIN_TRAIN + MIN_CALIBRATION_SIZE:
        raise DataError(
            f"{origin}: {count} {what}, and at least {MIN_TRAIN + MIN_CALIBRATION_SIZE} are needed, a part of them to "
            "calibrate on: give more normal data."
        )
    held_out = max(round(count * settings.data.held_out_share), MIN_CALIBRATION_SIZE)
    held_out = min(held_out, settings.data.max_held_out, count - MIN_TRAIN)
    order = generator.permutation(count)
    return np.sort(order[held_out:][: settings.data.max_train]), np.sort(order[:held_out])


def with_anomalies(
    normal: NDArray[np.float64], anomalous: NDArray[np.float64]
) -> tuple[NDArray[np.float64] | None, NDArray[np.bool_] | None]:
    """Return normal and anomalous samples as one test part with labels; None without anomalous ones."""
    if not len(anomalous):
        return None, None
    labels = np.concatenate([np.zeros(len(normal), dtype=np.bool_), np.ones(len(anomalous), dtype=np.bool_)])
    return np.concatenate([normal, anomalous]), labels


def modes_in(columns: Sequence[str], mode_column: str, normal: NDArray[np.float64]) -> dict[str, Any]:
    """Return the operating modes of the normal rows (n, columns) to train on, as fields of the input spec."""
    if not mode_column:
        return {}
    mode = normal[:, list(columns).index(mode_column)].astype(np.float32)
    return {"mode_channel": mode_column, "modes": tuple(np.unique(mode).tolist())}
