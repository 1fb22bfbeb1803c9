"""Operating modes: one channel says how the machine runs, and the graph inputs tell the modes apart.

The mode is a number, as all of a sample is. A window's mode is that of its last reading. Each mode of the training data
has a column of its own in the graph inputs; a mode that was not trained on, or is missing, has 0 in all of them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.bundle import InputSpec
from shared.errors import DataError
from shared.preprocessing.base import Prepared, Preprocessor

MAX_MODES = 32


class ModePreprocessor:
    """Another preprocessing for the measured channels, with a column for each mode behind its graph inputs."""

    def __init__(self, inner: Preprocessor, spec: InputSpec) -> None:
        self.inner, self.spec = inner, spec
        self.modality = inner.modality
        self._column = spec.channels.index(spec.mode_channel)

    def prepare(self, values: NDArray[Any] | Sequence[NDArray[Any]]) -> Prepared:
        """Graph inputs (kept, inner + modes) float32 of samples with all channels, the mode among them."""
        return self._prepare(values, self.inner.prepare)

    def prepare_for_engine(self, values: NDArray[Any] | Sequence[NDArray[Any]]) -> Prepared:
        """Engine inputs, the columns of the modes behind those of the measured channels."""
        return self._prepare(values, self.inner.prepare_for_engine)

    def graph_inputs(self, engine_inputs: NDArray[Any]) -> NDArray[Any]:
        """Graph inputs (n, inner + modes) of engine inputs."""
        width = engine_inputs.shape[1] - len(self.spec.modes)
        return np.concatenate([self.inner.graph_inputs(engine_inputs[:, :width]), engine_inputs[:, width:]], axis=1)

    def _prepare(
        self,
        values: NDArray[Any] | Sequence[NDArray[Any]],
        prepare: Callable[[NDArray[Any]], Prepared],
    ) -> Prepared:
        kept, samples, rejections = self._readable(values)
        prepared = prepare(np.delete(samples, self._column, axis=-1))
        rejections += [(int(kept[position]), reason) for position, reason in prepared.rejections]
        mode = samples[prepared.kept][..., self._column]
        chosen = one_hot(mode if mode.ndim == 1 else mode[:, -1], self.spec)
        inputs = np.concatenate([prepared.inputs, chosen], axis=1).astype(np.float32)
        return Prepared(inputs, kept[prepared.kept], sorted(rejections), prepared.windows)

    def files(self) -> dict[str, bytes]:
        """What the inner preprocessing stores: the modes stand in the manifest."""
        return self.inner.files()

    def _readable(
        self, values: NDArray[Any] | Sequence[NDArray[Any]]
    ) -> tuple[NDArray[np.intp], NDArray[np.float64], list[tuple[int, str]]]:
        """Positions (kept,) and values (kept, ..., channels) of the samples of the right shape; why others are not."""
        shape = (self.spec.window_length,) if self.spec.window_length else ()
        wanted = (*shape, len(self.spec.channels))
        if isinstance(values, np.ndarray) and values.shape[1:] == wanted and values.dtype.kind in "fiub":
            return np.arange(len(values), dtype=np.intp), values.astype(np.float64), []
        kept: list[int] = []
        samples: list[NDArray[np.float64]] = []
        rejections: list[tuple[int, str]] = []
        for position, value in enumerate(values):
            sample = _as_numbers(value)
            if sample is not None and sample.shape == wanted:
                kept.append(position)
                samples.append(sample)
            elif sample is None:
                rejections.append((position, "is not a sample of numbers."))
            else:
                given, expected = (" x ".join(map(str, size)) or "no" for size in (sample.shape, wanted))
                rejections.append((position, f"has {given} values, and {expected} are expected, the mode included."))
        stacked = np.stack(samples) if samples else np.empty((0, *wanted))
        return np.array(kept, dtype=np.intp), stacked, rejections


def inner_spec(spec: InputSpec) -> InputSpec:
    """The spec of the measured channels alone."""
    return spec.model_copy(update={"channels": spec.value_channels, "mode_channel": "", "modes": ()})


def without_mode(values: NDArray[Any] | Sequence[NDArray[Any]], spec: InputSpec) -> NDArray[np.float64]:
    """Samples (n, ..., channels) without the channel of the mode. Raises DataError if they do not have the channels."""
    samples = np.asarray(values, dtype=np.float64)
    if samples.ndim < 2 or samples.shape[-1] != len(spec.channels):
        raise DataError(f"Normal samples have shape {samples.shape}, and {len(spec.channels)} channels are named.")
    return np.delete(samples, spec.channels.index(spec.mode_channel), axis=-1)


def one_hot(mode: NDArray[Any], spec: InputSpec) -> NDArray[np.float32]:
    """(n, modes) float32: 1 in the column of each sample's mode (n,), compared as the float32 that travels."""
    known = np.asarray(spec.modes, dtype=np.float32)
    matches = np.asarray(mode, dtype=np.float32)[:, np.newaxis] == known
    return np.asarray(matches, dtype=np.float32)


def _as_numbers(value: Any) -> NDArray[np.float64] | None:
    try:
        return np.asarray(value, dtype=np.float64)
    except (ValueError, TypeError):
        return None
