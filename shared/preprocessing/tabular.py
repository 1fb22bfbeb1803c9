"""Preprocessing of table rows: each feature standardised by the mean and deviation of the normal rows.

If the spec allows missing values (NaN), the graph inputs are the values, 0 (the mean) for a missing value, followed by
a mask with as many columns, 1 for an observed value. The mask separates missing from average values. A row without any
value is rejected.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from shared.bundle import PREPROCESSING_FOLDER, InputSpec, npz_bytes
from shared.errors import BundleError, DataError
from shared.modality import Modality
from shared.preprocessing.base import (
    LINEAR_RANGE,
    ROW_RANGE,
    Prepared,
    Preprocessor,
    expand,
    not_finite_reason,
    reject_all,
    scale_of,
    standardise,
)
from shared.preprocessing.ranges import ChannelRanges, ranges_of, stored_span


class TabularPreprocessor(Preprocessor):
    """Standardisation of rows (n, features), compressed beyond ROW_RANGE deviations.

    Graph inputs are float32: (n, features), or (n, 2 features) with the mask if values may be missing.
    """

    modality = Modality.TABULAR
    file_path: ClassVar[str] = f"{PREPROCESSING_FOLDER}tabular.npz"

    def __init__(
        self,
        spec: InputSpec,
        mean: NDArray[np.float64],
        scale: NDArray[np.float64],
        span: NDArray[np.float64] | None = None,
        linear_range: float = ROW_RANGE,
    ) -> None:
        """`mean`, `scale`: (features,). `span`: (2, features), low and high of normal values; None in older bundles.

        `linear_range`: deviations beyond which values are compressed.
        """
        self.spec = spec
        self._mean, self._scale, self._span, self._linear_range = mean, scale, span, linear_range

    @classmethod
    def fit(cls, rows: NDArray[Any] | Sequence[NDArray[Any]], spec: InputSpec, linear_range: float = ROW_RANGE) -> Self:
        """Fit on the observed values of normal rows (n, features), finite or, if the spec allows it, NaN.

        Raises DataError if they do not have the features of `spec`, or if a feature has no observed value.
        """
        values = np.asarray(rows, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(spec.channels) or not len(values):
            raise DataError(f"Normal rows have shape {values.shape}; the spec names {len(spec.channels)} features.")
        observed = ~np.isnan(values)
        if not spec.missing and not observed.all():
            raise DataError("A normal row contains NaN, and this preprocessing does not allow missing values.")
        counts = observed.sum(axis=0)
        if not counts.all():
            empty = spec.channels[int(np.argmin(counts))]
            raise DataError(f"Feature {empty!r} has no value in the training rows: leave it out.")
        mean = np.where(observed, values, 0.0).sum(axis=0) / counts
        squares = np.square(np.where(observed, values, mean) - mean).sum(axis=0) / counts
        return cls(spec, mean, scale_of(np.sqrt(squares), mean), ranges_of(values, observed), linear_range)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], spec: InputSpec) -> Self:
        """Return the preprocessing that `files` wrote; raises BundleError for other arrays."""
        try:
            mean, scale = (np.asarray(arrays[key], dtype=np.float64) for key in ("mean", "scale"))
        except KeyError as error:
            raise BundleError(f"{cls.file_path} lacks {error}: retrain the bundle.") from None
        if not mean.shape == scale.shape == (len(spec.channels),):
            raise BundleError(f"{cls.file_path} does not fit the bundle's features: retrain the bundle.")
        linear_range = float(arrays.get("linear_range", LINEAR_RANGE))  # older bundles: that of series
        if not 0 < linear_range < np.inf:
            raise BundleError(f"{cls.file_path} has a linear range of {linear_range}: retrain the bundle.")
        return cls(spec, mean, scale, stored_span(arrays, len(spec.channels)), linear_range)

    def prepare(self, values: NDArray[Any] | Sequence[NDArray[Any]]) -> Prepared:
        """Return graph inputs (kept, width) float32 of rows (n, features)."""
        width = len(self.spec.channels)
        rows = _as_rows(values)
        if rows is None:
            return self._prepare_one_by_one(values)
        if rows.ndim != 2 or rows.shape[1] != width:
            given = rows.shape[1:] if rows.ndim != 2 else rows.shape[1]
            return reject_all(len(rows), (self._width,), f"has {given} features; expected {width}.")
        usable = self._usable(rows)
        kept = np.flatnonzero(usable)
        rejections = [
            (position, self._rejection_reason(rows[position])) for position in np.flatnonzero(~usable).tolist()
        ]
        return Prepared(self._inputs(rows if len(kept) == len(rows) else rows[kept]), kept, rejections)

    def files(self) -> dict[str, bytes]:
        """Return means, scales, the linear range and normal ranges as one NPZ file."""
        arrays = {"mean": self._mean, "scale": self._scale, "linear_range": np.array(self._linear_range)}
        if self._span is not None:
            arrays["range"] = self._span
        return {self.file_path: npz_bytes(arrays)}

    def ranges(self) -> ChannelRanges:
        """Return the normal range of each feature."""
        return ChannelRanges.from_moments(self.spec.channels, self._mean, self._scale, self._span)

    def raw_values(self, inputs: NDArray[Any]) -> NDArray[np.float64]:
        """Return the values (n, features) of graph inputs (n, width); NaN for a missing value."""
        width = len(self.spec.channels)
        deviations = expand(np.asarray(inputs[:, :width], dtype=np.float64), self._linear_range)
        values = deviations * self._scale + self._mean
        return np.where(inputs[:, width : 2 * width] > 0.5, values, np.nan) if self.spec.missing else values

    @property
    def _width(self) -> int:
        return len(self.spec.channels) * (2 if self.spec.missing else 1)

    def _usable(self, rows: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which rows are valid (n,): finite, or if values may be missing, with a value and no infinity."""
        if not self.spec.missing:
            return np.asarray(np.isfinite(rows).all(axis=1))
        return np.asarray(~np.isinf(rows).any(axis=1) & ~np.isnan(rows).all(axis=1))

    def _inputs(self, rows: NDArray[np.float64]) -> NDArray[np.float32]:
        if not self.spec.missing:
            return standardise(rows, self._mean, self._scale, self._linear_range).astype(np.float32)
        observed = ~np.isnan(rows)
        values = standardise(np.where(observed, rows, self._mean), self._mean, self._scale, self._linear_range)
        inputs: NDArray[np.float32] = np.concatenate([values, observed], axis=1).astype(np.float32)
        return inputs

    def _rejection_reason(self, row: NDArray[np.float64]) -> str:
        """Return why a row is invalid."""
        if self.spec.missing and np.isnan(row).all():
            return "is a row without any value: all are NaN."
        bad = np.isinf(row) if self.spec.missing else ~np.isfinite(row)
        feature = int(np.argmax(bad))
        return not_finite_reason(float(row[feature]), f"feature {self.spec.channels[feature]!r}")

    def _prepare_one_by_one(self, values: NDArray[Any] | Sequence[NDArray[Any]]) -> Prepared:
        """Prepare rows of differing lengths or types one by one, so that an invalid row affects no other."""
        inputs, kept, rejections = [], [], []
        for position, value in enumerate(values):
            row = _as_rows([value])
            if row is None:
                rejections.append((position, "is not a row of numbers."))
                continue
            one = self.prepare(row)
            rejections += [(position, reason) for _, reason in one.rejections]
            if len(one.kept):
                inputs.append(one.inputs)
                kept.append(position)
        stacked = np.concatenate(inputs) if inputs else np.zeros((0, self._width), dtype=np.float32)
        return Prepared(stacked, np.array(kept, dtype=np.intp), rejections)


def _as_rows(values: NDArray[Any] | Sequence[Any]) -> NDArray[np.float64] | None:
    try:
        return np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError):
        return None
