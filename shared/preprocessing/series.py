"""Preprocessing of windows: standardised channels, and three views of a window side by side as graph inputs.

1. Scores on the leading principal components, all divided by one deviation: the position among normal windows.
   Distances between scores are distances between windows. Whitening would give low-variance components the same weight.
2. The distance from the subspace of the components, which shows shapes outside it.
3. For each channel, how unexpected it is given all the others (`conditional_gaussian`), plus how much too still it is
   (`stillness`). Broken relations between channels lie along low-variance directions, which the first view omits and
   the second hardly shows. A stuck channel shows in its stillness only.

If the spec allows it, a reading may be missing (NaN). It is imputed with its mean given the observed readings, and only
observed readings are scored. A channel without any reading counts as expected; a window without any reading is
rejected.

On devices the artefact computes the views from raw readings (`cloud.methods.encoders.series_views`). If readings may be
missing, its inputs are standardised and imputed windows together with their mask.

Source of the second view: Jackson & Mudholkar, "Control procedures for residuals associated with principal component
analysis" (1979).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from shared.bundle import PREPROCESSING_FOLDER, InputSpec, npz_bytes
from shared.errors import BundleError, DataError
from shared.modality import Modality
from shared.preprocessing.base import (
    Prepared,
    SeriesWindows,
    compress,
    expand,
    not_finite_reason,
    scale_of,
    standardise,
)
from shared.preprocessing.conditional_gaussian import ConditionalGaussian, group_maxima
from shared.preprocessing.ranges import ChannelRanges, ranges_of, stored_span
from shared.preprocessing.stillness import Stillness

EXPLAINED_VARIANCE = 0.99
MAX_COMPONENTS = 63  # 64 inputs together with the distance, plus those of the channels
VIEW_RANGE = 10.0  # deviations; larger values of a view are compressed
MAX_WINDOW_VALUES = 2048  # length * channels, which bounds the covariance matrix
MAX_FLOAT32 = float(np.finfo(np.float32).max)
SURPRISE_WEIGHT = 0.5  # weight of a channel's surprise relative to the other inputs, in deviations on normal data
STILL_RESIDUAL = 3.0  # deviations of each reading of a channel with a stillness of 1
SURPRISE_SPREAD = 0.05  # minimum deviation of a surprise; the copy of another channel has none


@dataclass(frozen=True, slots=True)
class ViewParameters:
    """Fitted parameters of the views.

    `mean`, `scale`: (channels,). `components`: (k, length * channels), orthonormal rows. `deviation`: (1,), of the
    scores. `residual`: (2,), mean and deviation of the distance from the subspace. `surprise`: (2, groups), mean and
    unit of the surprises. `still`: (3, channels), see `Stillness.to_array`.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    components: NDArray[np.float64]
    deviation: NDArray[np.float64]
    residual: NDArray[np.float64]
    surprise: NDArray[np.float64]
    still: NDArray[np.float64]


class SeriesPreprocessor:
    """Conversion of windows (n, length, channels) to graph inputs (n, components + 1 + groups of channels) float32."""

    modality = Modality.SERIES
    file_path: ClassVar[str] = f"{PREPROCESSING_FOLDER}series.npz"

    def __init__(
        self,
        spec: InputSpec,
        views: ViewParameters,
        gaussian: ConditionalGaussian,
        span: NDArray[np.float64] | None = None,
    ) -> None:
        """`span`: (2, channels), low and high of normal readings; None in older bundles."""
        self.spec = spec
        self.views, self.gaussian, self._span = views, gaussian, span
        self.stillness = Stillness.from_array(views.still, spec.window_length)

    @classmethod
    def fit(cls, windows: NDArray[Any] | Sequence[NDArray[Any]], spec: InputSpec) -> Self:
        """Fit on normal windows (n, length, channels), in the order of time, finite or, if the spec allows it, NaN.

        Raises DataError if they do not fit `spec`, or if there are too few with a reading.
        """
        values = np.asarray(windows, dtype=np.float64)
        _check_windows(values, spec)
        observed = ~np.isnan(values)
        kept = observed.any(axis=(1, 2))
        if kept.sum() < 2:
            raise DataError(f"{kept.sum()} of {len(values)} normal windows contain a reading; two are needed.")
        values, observed = values[kept], observed[kept]
        mean, spread = _moments(values, observed)
        scale = scale_of(spread, mean)
        standard = np.where(observed, standardise(values, mean, scale), 0.0)
        gaussian = ConditionalGaussian.fit(standard, observed)
        standard = standard if observed.all() else gaussian.impute(standard, observed)
        flat = (standard - gaussian.centre).reshape(len(standard), -1)
        variances, components = _principal_components(flat)
        deviation = np.array([np.sqrt(max(float(variances.mean()), 1e-6))])
        distance = _distances(flat, flat @ components.T)
        residual = np.array([distance.mean(), max(float(distance.std()), 0.1 * float(distance.mean()), 1e-3)])
        surprises = gaussian.surprises(standard, observed)
        unit = (surprises.std(axis=0) + SURPRISE_SPREAD) / SURPRISE_WEIGHT
        surprise = np.stack([surprises.mean(axis=0), unit])
        still = Stillness.fit(standard, observed)
        views = ViewParameters(mean, scale, components, deviation, residual, surprise, still.to_array())
        channels = len(spec.channels)
        span = ranges_of(values.reshape(-1, channels), observed.reshape(-1, channels))
        return cls(spec, views, gaussian, span)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], spec: InputSpec) -> Self:
        """Return the preprocessing that `files` wrote; raises BundleError for other arrays."""
        names = ViewParameters.__dataclass_fields__
        try:
            if "still" not in arrays:  # a bundle of an earlier version
                arrays = {**arrays, "still": Stillness.without(np.size(arrays["mean"]), 1).to_array()}
            views = ViewParameters(**{name: np.asarray(arrays[name], dtype=np.float64) for name in names})
            gaussian = ConditionalGaussian.from_arrays(arrays)
        except KeyError as error:
            raise BundleError(f"{cls.file_path} lacks {error}: retrain the bundle.") from None
        except ValueError as error:
            raise BundleError(f"{cls.file_path}: {error}; retrain the bundle.") from None
        shape = (spec.window_length, len(spec.channels))
        if gaussian.centre.shape != shape or views.mean.shape != shape[1:] or views.still.shape != (3, *shape[1:]):
            raise BundleError(f"{cls.file_path} does not fit the bundle's windows: retrain the bundle.")
        return cls(spec, views, gaussian, stored_span(arrays, len(spec.channels)))

    def prepare(self, values: NDArray[Any] | Sequence[NDArray[Any]]) -> Prepared:
        """Return graph inputs (kept, inputs) float32 of windows (n, length, channels); NaN is missing, if allowed."""
        windows, kept, rejections = self._readable(values)
        seen = self.standardised(windows)
        return Prepared(self._graph_inputs(seen), kept, rejections, seen)

    def prepare_for_engine(self, values: NDArray[Any] | Sequence[NDArray[Any]]) -> Prepared:
        """Return engine inputs (kept, width) float32 of windows (n, length, channels): length * channels readings.

        If readings may be missing, they are standardised and imputed, followed by their mask: 1 if observed, else 0.
        """
        windows, kept, rejections = self._readable(values)
        inputs = windows
        if self.spec.missing:
            seen = self.standardised(windows)
            inputs = np.concatenate([seen.values, seen.observed], axis=1)
        if inputs.dtype != np.float32:
            inputs = np.clip(inputs, -MAX_FLOAT32, MAX_FLOAT32)
        width = self.gaussian.centre.size * (2 if self.spec.missing else 1)
        # A copy, because overlapping windows share memory and an engine needs separate rows.
        return Prepared(np.array(inputs, np.float32, order="C").reshape(len(kept), width), kept, rejections)

    def graph_inputs(self, engine_inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Return graph inputs (n, inputs) float32 of engine inputs."""
        length, channels = self.gaussian.centre.shape
        rows = length * (2 if self.spec.missing else 1)
        windows = engine_inputs.reshape(len(engine_inputs), rows, channels)
        if not self.spec.missing:
            return self._graph_inputs(self.standardised(windows))
        return self._graph_inputs(SeriesWindows(windows[:, :length].astype(np.float64), windows[:, length:] > 0.5))

    def standardised(self, windows: NDArray[Any]) -> SeriesWindows:
        """Return valid windows (n, length, channels) standardised and imputed; NaN is a missing reading."""
        values = np.asarray(windows, dtype=np.float64)
        observed = ~np.isnan(values)
        if observed.all():
            return SeriesWindows(standardise(values, self.views.mean, self.views.scale), observed)
        filled = np.where(observed, values, self.views.mean)
        standard = self.gaussian.impute(standardise(filled, self.views.mean, self.views.scale), observed)
        return SeriesWindows(standard, observed)

    def residuals(self, seen: SeriesWindows) -> NDArray[np.float64]:
        """Return how unexpected each reading of windows from `prepare` is: (n, length, channels).

        This is the distance of a reading from its imputation given the other channels, in deviations on normal data,
        multiplied by its distance from the mean if that exceeds one deviation. A faulty channel also distorts the
        imputation of the others, but only its own readings are far from their mean. 0 for a missing reading.
        Deviations that principal components cannot show are included. The stillness of a channel is added to each of
        its readings.
        """
        itself = np.maximum(np.abs(seen.values - self.gaussian.centre), 1.0)
        still = STILL_RESIDUAL * self.stillness.of(seen.values, seen.observed)
        unexpected = np.abs(self.gaussian.residuals(seen.values)) * itself + still[:, np.newaxis]
        return np.where(seen.observed, unexpected, 0.0)

    def expected(self, seen: SeriesWindows) -> NDArray[np.float64]:
        """Return the reading expected of each channel given the others (n, length, channels), in its own unit."""
        standard = seen.values - self.gaussian.shifts(seen.values)
        return expand(standard) * self.views.scale + self.views.mean

    def files(self) -> dict[str, bytes]:
        """Return the scaling, the components, the distribution of windows and normal ranges as one NPZ file."""
        arrays = {name: getattr(self.views, name) for name in ViewParameters.__dataclass_fields__}
        if self._span is not None:
            arrays["range"] = self._span
        return {self.file_path: npz_bytes({**arrays, **self.gaussian.to_arrays()})}

    def ranges(self) -> ChannelRanges:
        """Return the normal range of each channel."""
        return ChannelRanges.from_moments(self.spec.channels, self.views.mean, self.views.scale, self._span)

    @property
    def surprise_columns(self) -> slice:
        """Graph inputs that hold the surprise of each channel (or group of channels) given the others."""
        return slice(len(self.views.components) + 1, self._width)

    @property
    def _width(self) -> int:
        return len(self.views.components) + 1 + self.gaussian.groups

    def _readable(
        self, values: NDArray[Any] | Sequence[NDArray[Any]]
    ) -> tuple[NDArray[np.floating[Any]], NDArray[np.intp], list[tuple[int, str]]]:
        """Return the valid windows (kept, length, channels), their positions, and the rejections."""
        shape = (self.spec.window_length, len(self.spec.channels))
        windows = _as_windows(values)
        if windows is None:
            return self._readable_one_by_one(values)
        if windows.ndim != 3 or windows.shape[1:] != shape:
            given = " x ".join(str(size) for size in windows.shape[1:])
            reason = f"is a window of {given or 'no'} values; expected {shape[0]} x {shape[1]}."
            return np.empty((0, *shape)), np.zeros(0, np.intp), [(position, reason) for position in range(len(windows))]
        if np.isfinite(_readings(windows)).all():  # the usual case
            return windows, np.arange(len(windows), dtype=np.intp), []
        finite = np.isfinite(windows)
        allowed = finite | (np.isnan(windows) if self.spec.missing else np.False_)
        usable = allowed.all(axis=(1, 2)) & finite.any(axis=(1, 2))
        rejections = [
            (position, self._rejection_reason(windows[position])) for position in np.flatnonzero(~usable).tolist()
        ]
        return windows[usable], np.flatnonzero(usable), rejections

    def _readable_one_by_one(
        self, values: NDArray[Any] | Sequence[NDArray[Any]]
    ) -> tuple[NDArray[np.floating[Any]], NDArray[np.intp], list[tuple[int, str]]]:
        """Check windows of differing shapes or types one by one, so that an invalid window affects no other."""
        usable: list[NDArray[np.floating[Any]]] = [np.empty((0, *self.gaussian.centre.shape))]
        kept: list[int] = []
        rejections: list[tuple[int, str]] = []
        for position, value in enumerate(values):
            window = _as_windows([value])
            if window is None:
                rejections.append((position, "is not a window of numbers."))
                continue
            readable, _, reasons = self._readable(window)
            usable.append(readable)
            kept += [position] * len(readable)
            rejections += [(position, reason) for _, reason in reasons]
        return np.concatenate(usable), np.array(kept, dtype=np.intp), rejections

    def _graph_inputs(self, seen: SeriesWindows) -> NDArray[np.float32]:
        views = self.views
        flat = (seen.values - self.gaussian.centre).reshape(len(seen.values), self.gaussian.centre.size)
        scores = flat @ views.components.T
        distance = (_distances(flat, scores) - views.residual[0]) / views.residual[1]
        surprises = self.gaussian.surprises(seen.values, seen.observed)
        surprises = surprises + group_maxima(self.stillness.of(seen.values, seen.observed))
        surprises = (surprises - views.surprise[0]) / views.surprise[1]
        side_by_side = np.column_stack([scores / views.deviation, distance, surprises])
        return compress(side_by_side, VIEW_RANGE).astype(np.float32)

    def _rejection_reason(self, window: NDArray[np.floating[Any]]) -> str:
        """Return why a window is invalid."""
        if np.isnan(window).all():
            return "is a window without any reading: all values are NaN."
        bad = np.isinf(window) if self.spec.missing else ~np.isfinite(window)
        time_point, channel = np.unravel_index(int(np.argmax(bad)), window.shape)
        where = f"channel {self.spec.channels[channel]!r} at time point {time_point} of the window"
        return not_finite_reason(float(window[time_point, channel]), where)


def _check_windows(values: NDArray[np.float64], spec: InputSpec) -> None:
    shape = (spec.window_length, len(spec.channels))
    if values.ndim != 3 or values.shape[1:] != shape or len(values) < 2:
        raise DataError(f"Normal windows have shape {values.shape}; expected two or more of shape {shape}.")
    if shape[0] * shape[1] > MAX_WINDOW_VALUES:
        raise DataError(
            f"A window of {shape[0]} time points and {shape[1]} channels has more than {MAX_WINDOW_VALUES} values: "
            "set a shorter series.window_length, or leave channels out with data.columns."
        )
    if np.isinf(values).any():
        raise DataError("A normal window contains an infinite reading: remove such rows from the training data.")
    if not spec.missing and np.isnan(values).any():
        raise DataError("A normal window contains NaN, and this preprocessing does not allow missing readings.")


def _moments(
    values: NDArray[np.float64], observed: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and deviation (channels,) of the observed readings; 0 and 0 for a channel that was never observed."""
    counts = np.maximum(observed.sum(axis=(0, 1)), 1)
    mean = np.where(observed, values, 0.0).sum(axis=(0, 1)) / counts
    squares = np.where(observed, np.square(np.where(observed, values, mean) - mean), 0.0)
    return mean, np.sqrt(squares.sum(axis=(0, 1)) / counts)


def _principal_components(flat: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return variances (k,), descending, and orthonormal components (k, values) of centred rows (n, values)."""
    eigenvalues, vectors = np.linalg.eigh(flat.T @ flat / len(flat))
    eigenvalues, vectors = np.maximum(eigenvalues[::-1], 0.0), vectors[:, ::-1]
    share = np.cumsum(eigenvalues) / max(float(eigenvalues.sum()), 1e-300)
    count = int(np.searchsorted(share, EXPLAINED_VARIANCE)) + 1
    count = max(1, min(count, MAX_COMPONENTS, len(flat) - 1, flat.shape[1]))
    return eigenvalues[:count], vectors[:, :count].T.copy()


def _distances(flat: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance of each row from the subspace of the components (n,), by Pythagoras."""
    squared = np.einsum("nd,nd->n", flat, flat) - np.einsum("nk,nk->n", scores, scores)
    distances: NDArray[np.float64] = np.sqrt(np.maximum(squared, 0.0))
    return distances


def _readings(windows: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return the rows (rows, channels) that overlapping windows (n, length, channels) are views of, else the windows.

    It lets a check read each value once.
    """
    count, length, channels = windows.shape
    step, row, _ = windows.strides
    if count < 2 or row <= 0 or step % row or not row <= step < length * row:
        return windows
    rows = (count - 1) * (step // row) + length
    return as_strided(windows, (rows, channels), windows.strides[1:], writeable=False)


def _as_windows(values: NDArray[Any] | Sequence[Any]) -> NDArray[np.floating[Any]] | None:
    if isinstance(values, np.ndarray) and values.dtype == np.float32:
        return values
    try:
        return np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError):
        return None
