"""Tabular rows: each feature standardised by the mean and deviation of the normal rows.

Where the spec allows missing values (NaN), the graph inputs are the values, 0 (the mean) where one is missing, and then
a mask of as many columns, 1 where a value was observed: what is missing can be told from what is average. A row
without a single value is rejected.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from shared.bundle import PREPROCESSING_FOLDER, InputSpec, npz_bytes
from shared.errors import BundleError, DataError
from shared.modality import Modality
from shared.preprocessing.base import Prepared, Preprocessor, reject_all, say_not_finite, scale_of, standardise


class TabularPreprocessor(Preprocessor):
    """Rows (n, features) to graph inputs float32, compressed beyond three deviations: (n, features), or (n, 2 features)
    with the mask where values may be missing."""

    modality = Modality.TABULAR
    file_path: ClassVar[str] = f"{PREPROCESSING_FOLDER}tabular.npz"

    def __init__(self, spec: InputSpec, mean: NDArray[np.float64], scale: NDArray[np.float64]) -> None:
        self.spec = spec
        self._mean, self._scale = mean, scale

    @classmethod
    def fit(cls, rows: NDArray[Any] | Sequence[NDArray[Any]], spec: InputSpec) -> Self:
        """Fit on normal rows (n, features), finite or, if the spec allows it, NaN: on what was observed of a feature.

        Raises DataError if they have not the features of `spec`, or for a feature of which nothing was observed.
        """
        values = np.asarray(rows, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(spec.channels) or not len(values):
            raise DataError(f"Normal rows have shape {values.shape}, and {len(spec.channels)} features are named.")
        observed = ~np.isnan(values)
        if not spec.missing and not observed.all():
            raise DataError("A normal row holds NaN, and this preprocessing was not asked to allow missing values.")
        counts = observed.sum(axis=0)
        if not counts.all():
            empty = spec.channels[int(np.argmin(counts))]
            raise DataError(f"Feature {empty!r} is missing in every normal row to train on: leave it out.")
        mean = np.where(observed, values, 0.0).sum(axis=0) / counts
        squares = np.square(np.where(observed, values, mean) - mean).sum(axis=0) / counts
        return cls(spec, mean, scale_of(np.sqrt(squares), mean))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], spec: InputSpec) -> Self:
        """What `files` wrote; raises BundleError if the arrays are not such."""
        try:
            mean, scale = (np.asarray(arrays[key], dtype=np.float64) for key in ("mean", "scale"))
        except KeyError as error:
            raise BundleError(f"{cls.file_path} lacks {error}: train the bundle anew.") from None
        if not mean.shape == scale.shape == (len(spec.channels),):
            raise BundleError(f"{cls.file_path} does not fit the bundle's features: train the bundle anew.")
        return cls(spec, mean, scale)

    def prepare(self, values: NDArray[Any] | Sequence[NDArray[Any]]) -> Prepared:
        """Graph inputs (kept, width) float32 of rows (n, features)."""
        width = len(self.spec.channels)
        rows = _as_rows(values)
        if rows is None:
            return self._prepare_one_by_one(values)
        if rows.ndim != 2 or rows.shape[1] != width:
            given = rows.shape[1:] if rows.ndim != 2 else rows.shape[1]
            return reject_all(len(rows), (self._width,), f"has {given} features, and {width} are expected.")
        usable = self._usable(rows)
        kept = np.flatnonzero(usable)
        rejections = [(position, self._complaint(rows[position])) for position in np.flatnonzero(~usable).tolist()]
        return Prepared(self._inputs(rows if len(kept) == len(rows) else rows[kept]), kept, rejections)

    def files(self) -> dict[str, bytes]:
        """The means and scales, as one array file."""
        return {self.file_path: npz_bytes({"mean": self._mean, "scale": self._scale})}

    @property
    def _width(self) -> int:
        return len(self.spec.channels) * (2 if self.spec.missing else 1)

    def _usable(self, rows: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(n,) whether a row can be used: finite, or where values may be missing, with one value and no infinity."""
        if not self.spec.missing:
            return np.asarray(np.isfinite(rows).all(axis=1))
        return np.asarray(~np.isinf(rows).any(axis=1) & ~np.isnan(rows).all(axis=1))

    def _inputs(self, rows: NDArray[np.float64]) -> NDArray[np.float32]:
        if not self.spec.missing:
            return standardise(rows, self._mean, self._scale).astype(np.float32)
        observed = ~np.isnan(rows)
        values = standardise(np.where(observed, rows, self._mean), self._mean, self._scale)
        inputs: NDArray[np.float32] = np.concatenate([values, observed], axis=1).astype(np.float32)
        return inputs

    def _complaint(self, row: NDArray[np.float64]) -> str:
        """Why a row cannot be used."""
        if self.spec.missing and np.isnan(row).all():
            return "is a row without a single value: all are NaN."
        bad = np.isinf(row) if self.spec.missing else ~np.isfinite(row)
        feature = int(np.argmax(bad))
        return say_not_finite(float(row[feature]), f"feature {self.spec.channels[feature]!r}")

    def _prepare_one_by_one(self, values: NDArray[Any] | Sequence[NDArray[Any]]) -> Prepared:
        """Rows of differing lengths or types: each alone, so that one bad row spoils no other."""
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
