"""Preprocessing of samples with an operating mode: one-hot columns of the mode, added to the graph inputs.

One channel holds the mode, as a number. The mode of a window is that of its last reading. Each mode of the training
data has a column in the graph inputs. A mode that is missing or not in the training data has 0 in all columns.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.bundle import InputSpec
from shared.errors import DataError
from shared.preprocessing.base import Prepared, Preprocessor
from shared.preprocessing.ranges import ChannelRanges

MAX_MODES = 32


class ModePreprocessor:
    """Wrapper that prepares the measured channels by `inner` and appends a column for each mode."""

    def __init__(self, inner: Preprocessor, spec: InputSpec) -> None:
        self.inner, self.spec = inner, spec
        self.modality = inner.modality
        self._column = spec.channels.index(spec.mode_channel)

    def prepare(self, values: NDArray[Any] | Sequence[NDArray[Any]]) -> Prepared:
        """Return graph inputs (kept, inner + modes) float32 of samples with all channels, including the mode."""
        return self._prepare(values, self.inner.prepare)

    def prepare_for_engine(self, values: NDArray[Any] | Sequence[NDArray[Any]]) -> Prepared:
        """Return engine inputs: those of the measured channels, then the columns of the modes."""
        return self._prepare(values, self.inner.prepare_for_engine)

    def graph_inputs(self, engine_inputs: NDArray[Any]) -> NDArray[Any]:
        """Return graph inputs (n, inner + modes) of engine inputs."""
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
        """Return the files of the inner preprocessing; the manifest holds the modes."""
        return self.inner.files()

    def ranges(self) -> ChannelRanges | None:
        """Return the normal ranges of the measured channels."""
        return self.inner.ranges()

    def _readable(
        self, values: NDArray[Any] | Sequence[NDArray[Any]]
    ) -> tuple[NDArray[np.intp], NDArray[np.float64], list[tuple[int, str]]]:
        """Return positions (kept,) and values (kept, ..., channels) of well-shaped samples, and the rejections."""
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
                rejections.append((position, f"has {given} values; expected {expected}, including the mode."))
        stacked = np.stack(samples) if samples else np.empty((0, *wanted))
        return np.array(kept, dtype=np.intp), stacked, rejections


def inner_spec(spec: InputSpec) -> InputSpec:
    """Return the spec of the measured channels alone."""
    return spec.model_copy(update={"channels": spec.value_channels, "mode_channel": "", "modes": ()})


def without_mode(values: NDArray[Any] | Sequence[NDArray[Any]], spec: InputSpec) -> NDArray[np.float64]:
    """Return samples (n, ..., channels) without the mode; raises DataError if they do not fit the channels."""
    samples = np.asarray(values, dtype=np.float64)
    if samples.ndim < 2 or samples.shape[-1] != len(spec.channels):
        raise DataError(f"Normal samples have shape {samples.shape}; the spec names {len(spec.channels)} channels.")
    return np.delete(samples, spec.channels.index(spec.mode_channel), axis=-1)


def one_hot(mode: NDArray[Any], spec: InputSpec) -> NDArray[np.float32]:
    """Return one-hot modes (n, modes) float32; `mode` (n,) is compared in float32, as samples are sent."""
    known = np.asarray(spec.modes, dtype=np.float32)
    matches = np.asarray(mode, dtype=np.float32)[:, np.newaxis] == known
    return np.asarray(matches, dtype=np.float32)


def _as_numbers(value: Any) -> NDArray[np.float64] | None:
    try:
        return np.asarray(value, dtype=np.float64)
    except (ValueError, TypeError):
        return None
