"""Protocol of a preprocessing, its result, and the scaling that rows and windows share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.bundle import InputSpec
from shared.modality import Modality
from shared.preprocessing.ranges import ChannelRanges

LINEAR_RANGE = 3.0  # standard deviations of readings; larger values are compressed, so that one does not dominate
ROW_RANGE = 10.0  # the same for the features of rows
MAX_COMPRESSED = 2000.0  # the largest float64 gives LINEAR_RANGE * (1 + log(1e308 / LINEAR_RANGE)) = 2100


@dataclass(frozen=True, slots=True)
class SeriesWindows:
    """Standardised windows.

    `values`: (n, length, channels) float64, missing readings imputed. `observed`: bool of that shape, false for a
    missing reading.
    """

    values: NDArray[np.float64]
    observed: NDArray[np.bool_]

    def at(self, rows: slice | NDArray[Any]) -> "SeriesWindows":
        """Return the windows at the positions `rows`."""
        return SeriesWindows(self.values[rows], self.observed[rows])

    def joined(self, others: "SeriesWindows") -> "SeriesWindows":
        """Return these windows followed by the others."""
        values = np.concatenate([self.values, others.values])
        return SeriesWindows(values, np.concatenate([self.observed, others.observed]))


@dataclass(frozen=True, slots=True)
class Prepared:
    """Graph inputs or engine inputs of the valid samples of a batch.

    `inputs`: (kept, ...) float32, or uint8 for images. `kept`: (kept,) positions in the batch, ascending.
    `rejections`: position and reason of each other sample. `windows`: standardised windows of a series, else None.
    """

    inputs: NDArray[Any]
    kept: NDArray[np.intp]
    rejections: list[tuple[int, str]]
    windows: SeriesWindows | None = None


class Preprocessor(Protocol):
    """Conversion of samples to graph inputs, for heads, and to engine inputs, for artefacts.

    The two differ if the artefact computes graph inputs from engine inputs itself, which is faster than NumPy. An
    invalid sample is rejected with a reason; it raises no error.
    """

    modality: Modality
    spec: InputSpec

    def prepare(self, values: NDArray[Any] | Sequence[NDArray[Any]]) -> Prepared:
        """Return graph inputs of a batch; reject samples of wrong shape, with NaN or infinity, or unreadable."""
        ...

    def prepare_for_engine(self, values: NDArray[Any] | Sequence[NDArray[Any]]) -> Prepared:
        """Return engine inputs of a batch; the graph inputs unless the artefact computes those itself."""
        return self.prepare(values)

    def graph_inputs(self, engine_inputs: NDArray[Any]) -> NDArray[Any]:
        """Return the graph inputs that an artefact computes from engine inputs (n, ...)."""
        return engine_inputs

    def files(self) -> dict[str, bytes]:
        """Return the files that a bundle stores, by path below `preprocessing/`."""
        ...

    def ranges(self) -> ChannelRanges | None:
        """Return the normal ranges of measured channels; None for samples without channels."""
        return None


def standardise(
    values: NDArray[Any],
    mean: NDArray[np.float64],
    scale: NDArray[np.float64],
    linear_range: float = LINEAR_RANGE,
) -> NDArray[np.float64]:
    """Return (values - mean) / scale along the last axis, compressed beyond `linear_range`.

    A deviation z with |z| > r = `linear_range` becomes sign(z) * r * (1 + log(|z| / r)), which is monotonic with a
    continuous slope. Distant readings keep their order, no value overflows, and eight bits still resolve the normal
    range.
    """
    with np.errstate(over="ignore"):
        return compress((np.asarray(values, dtype=np.float64) - mean) / scale, linear_range)


def compress(z: NDArray[np.float64], linear_range: float = LINEAR_RANGE) -> NDArray[np.float64]:
    """Return deviations compressed beyond `linear_range`, as in `standardise`."""
    far = np.abs(z) > linear_range
    if not far.any():
        return z
    bent, beyond = z.copy(), z[far]  # only these few need the logarithm, which costs as much as all other steps
    logs = np.log(np.abs(beyond) / linear_range)
    bent[far] = np.sign(beyond) * np.minimum(linear_range * (1.0 + logs), MAX_COMPRESSED)
    return bent


def expand(compressed: NDArray[np.float64], linear_range: float = LINEAR_RANGE) -> NDArray[np.float64]:
    """Return the deviations that `compress` compressed; infinite where float64 cannot hold them."""
    size = np.abs(compressed)
    with np.errstate(over="ignore"):
        beyond = linear_range * np.exp(np.maximum(size, linear_range) / linear_range - 1.0)
    expanded: NDArray[np.float64] = np.sign(compressed) * np.where(size > linear_range, beyond, size)
    return expanded


def scale_of(deviation: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard deviations to divide by, 1 for a feature that is constant up to rounding."""
    constant = deviation <= 1e-9 * np.maximum(np.abs(mean), 1e-9)
    return np.where(constant, 1.0, deviation)


def reject_all(count: int, shape: tuple[int, ...], reason: str) -> Prepared:
    """Return the result of a batch in which every sample is rejected for the same reason."""
    empty = np.zeros((0, *shape), dtype=np.float32)
    return Prepared(empty, np.zeros(0, dtype=np.intp), [(position, reason) for position in range(count)])


def not_finite_reason(value: float, where: str) -> str:
    """Return the reason for rejecting a sample with NaN or infinity."""
    return f"{where} is {'NaN' if np.isnan(value) else 'infinite'}."
