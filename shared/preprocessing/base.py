"""What every preprocessing is: the port, its result, and the scaling two of them share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.bundle import InputSpec
from shared.modality import Modality

LINEAR_RANGE = 3.0  # standard deviations; beyond them values are compressed, lest one wild feature decide alone
MAX_COMPRESSED = 2000.0  # float64 itself ends near LINEAR_RANGE * (1 + log(1e308 / LINEAR_RANGE)) = 2100


@dataclass(frozen=True, slots=True)
class SeriesWindows:
    """Standardised windows (n, length, channels) float64, missing readings imputed, and which were `observed`."""

    values: NDArray[np.float64]
    observed: NDArray[np.bool_]

    def at(self, rows: slice | NDArray[Any]) -> "SeriesWindows":
        """Some of the windows, by position."""
        return SeriesWindows(self.values[rows], self.observed[rows])

    def joined(self, others: "SeriesWindows") -> "SeriesWindows":
        """These windows and then the others."""
        values = np.concatenate([self.values, others.values])
        return SeriesWindows(values, np.concatenate([self.observed, others.observed]))


@dataclass(frozen=True, slots=True)
class Prepared:
    """Graph inputs, or engine inputs, of the samples that can be used.

    `inputs`: (kept, ...) float32, or uint8 for images. `kept`: (kept,) positions in the batch, ascending.
    `rejections`: position and reason of each other sample. `windows`: of a series, what the inputs were made from.
    """

    inputs: NDArray[Any]
    kept: NDArray[np.intp]
    rejections: list[tuple[int, str]]
    windows: SeriesWindows | None = None


class Preprocessor(Protocol):
    """Turns samples into graph inputs, which a head is trained on, and into engine inputs, which an artefact takes.

    They differ where the artefact makes the ones of the others before its head, faster than NumPy does. A sample that
    cannot be used is rejected, never raised for.
    """

    modality: Modality
    spec: InputSpec

    def prepare(self, values: NDArray[Any] | Sequence[NDArray[Any]]) -> Prepared:
        """Graph inputs of a batch, with a reason for each sample of wrong shape, NaN, infinity or unreadable bytes."""
        ...

    def prepare_for_engine(self, values: NDArray[Any] | Sequence[NDArray[Any]]) -> Prepared:
        """As `prepare`, with the engine inputs as `inputs`: the same, where nothing is left to the engine."""
        return self.prepare(values)

    def graph_inputs(self, engine_inputs: NDArray[Any]) -> NDArray[Any]:
        """What an artefact makes of its engine inputs (n, ...)."""
        return engine_inputs

    def files(self) -> dict[str, bytes]:
        """What a bundle stores, by path below `preprocessing/`."""
        ...


def standardise(values: NDArray[Any], mean: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """(values - mean) / scale along the last axis, compressed beyond LINEAR_RANGE.

    z stays z up to LINEAR_RANGE = r and becomes sign(z) * r * (1 + log(|z| / r)) beyond: monotonic, with a continuous
    slope. Order is kept however far a reading lies outside, no value overflows, and eight bits still resolve the normal
    range.
    """
    with np.errstate(over="ignore"):
        return compress((np.asarray(values, dtype=np.float64) - mean) / scale)


def compress(z: NDArray[np.float64], linear_range: float = LINEAR_RANGE) -> NDArray[np.float64]:
    """The compression of `standardise`, alone."""
    far = np.abs(z) > linear_range
    if not far.any():
        return z
    bent, beyond = z.copy(), z[far]  # few: a logarithm costs as much as all the rest
    logs = np.log(np.abs(beyond) / linear_range)
    bent[far] = np.sign(beyond) * np.minimum(linear_range * (1.0 + logs), MAX_COMPRESSED)
    return bent


def scale_of(deviation: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """The standard deviations to divide by: 1 where a feature is constant up to rounding."""
    constant = deviation <= 1e-9 * np.maximum(np.abs(mean), 1e-9)
    return np.where(constant, 1.0, deviation)


def reject_all(count: int, shape: tuple[int, ...], reason: str) -> Prepared:
    """A batch of which nothing can be used."""
    empty = np.zeros((0, *shape), dtype=np.float32)
    return Prepared(empty, np.zeros(0, dtype=np.intp), [(position, reason) for position in range(count)])


def say_not_finite(value: float, where: str) -> str:
    """The reason for rejecting a sample with a NaN or infinity in it."""
    return f"{where} is {'NaN' if np.isnan(value) else 'infinite'}."
