"""What the graph inputs of a row or window hold, side by side, as the bundle's `InputSpec` says:

    values | mask of the observed ones (tabular, where values may be missing) | one column for each operating mode

So whoever has graph inputs (an analyzer, the normal buffer, a federated round) has all there is to know of a sample.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.bundle import InputSpec
from shared.calibration_modes import UNKNOWN


@dataclass(frozen=True, slots=True)
class InputColumns:
    """`vectors`: (n, dim), the values, 0 where one is missing, and behind them the columns of the modes. `observed`:
    (n, dim) bool, None where nothing can be missing. `modes`: (n,) int64, positions in the spec's modes, UNKNOWN for
    one that was not trained on; None without a mode channel."""

    vectors: NDArray[Any]
    observed: NDArray[np.bool_] | None = None
    modes: NDArray[np.int64] | None = None


def columns_of(inputs: NDArray[Any], spec: InputSpec) -> InputColumns:
    """The parts of graph inputs (n, width); images (n, ...) are all one."""
    modes = modes_of(inputs, spec)
    masked = mask_width(spec)
    if not masked:
        return InputColumns(inputs, None, modes)
    chosen = inputs[:, 2 * masked :]
    observed = np.concatenate([inputs[:, masked : 2 * masked] > 0.5, np.ones_like(chosen, dtype=np.bool_)], axis=1)
    return InputColumns(np.concatenate([inputs[:, :masked], chosen], axis=1), observed, modes)


def modes_of(inputs: NDArray[Any], spec: InputSpec) -> NDArray[np.int64] | None:
    """The mode of each sample (n,), as in `InputColumns`, of graph inputs or engine inputs: both end with the modes."""
    if not spec.mode_channel:
        return None
    chosen = inputs[:, inputs.shape[1] - len(spec.modes) :] > 0.5
    return np.where(chosen.any(axis=1), chosen.argmax(axis=1), UNKNOWN).astype(np.int64)


def mask_width(spec: InputSpec) -> int:
    """How many columns of the graph inputs are the mask of as many leading ones; windows are imputed instead."""
    return len(spec.value_channels) if spec.missing and not spec.window_length else 0
