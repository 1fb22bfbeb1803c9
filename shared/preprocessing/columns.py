"""Columns of the graph inputs of a row or window.

    values | mask of the observed values (rows that may have missing values) | one column for each operating mode

The bundle's `InputSpec` gives their numbers. Graph inputs alone are sufficient for an analyzer, the normal buffer and a
federated round.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.bundle import InputSpec
from shared.calibration_modes import UNKNOWN


@dataclass(frozen=True, slots=True)
class InputColumns:
    """Graph inputs separated into their columns.

    `vectors`: (n, dim), the values, 0 for a missing value, followed by the columns of the modes. `observed`: (n, dim)
    bool, None if values cannot be missing. `modes`: (n,) int64, positions in the spec's modes, UNKNOWN for a mode that
    is not in the training data; None without a mode channel.
    """

    vectors: NDArray[Any]
    observed: NDArray[np.bool_] | None = None
    modes: NDArray[np.int64] | None = None


def columns_of(inputs: NDArray[Any], spec: InputSpec) -> InputColumns:
    """Return graph inputs (n, width) separated into their columns; images (n, ...) stay whole."""
    modes = modes_of(inputs, spec)
    masked = mask_width(spec)
    if not masked:
        return InputColumns(inputs, None, modes)
    chosen = inputs[:, 2 * masked :]
    observed = np.concatenate([inputs[:, masked : 2 * masked] > 0.5, np.ones_like(chosen, dtype=np.bool_)], axis=1)
    return InputColumns(np.concatenate([inputs[:, :masked], chosen], axis=1), observed, modes)


def modes_of(inputs: NDArray[Any], spec: InputSpec) -> NDArray[np.int64] | None:
    """Return the mode of each sample (n,), as in `InputColumns`; graph inputs and engine inputs both end with it."""
    if not spec.mode_channel:
        return None
    chosen = inputs[:, inputs.shape[1] - len(spec.modes) :] > 0.5
    return np.where(chosen.any(axis=1), chosen.argmax(axis=1), UNKNOWN).astype(np.int64)


def mask_width(spec: InputSpec) -> int:
    """Return the number of mask columns in graph inputs; 0 for windows, whose missing readings are imputed."""
    return len(spec.value_channels) if spec.missing and not spec.window_length else 0
