"""Gaussian model of whole windows, which imputes each channel from all the others.

Each group of channels (a single channel up to MAX_GROUPS channels) is hidden in turn and imputed from the rest. For
normal windows with covariance S and precision P = S^-1, the hidden values have the conditional mean and covariance

    E[x_g | rest] = x_g - (P_gg)^-1 (P (x - centre))_g        Cov[x_g | rest] = (P_gg)^-1

so one product with P imputes all groups of all windows. A missing value is set to its conditional mean given all
observed values. It does not change the scores of the observed values, and it is not scored.

Sources: Lauritzen, "Graphical Models" (1996), proposition C.5; out-of-fold limits: Stone, "Cross-validatory choice and
assessment of statistical predictions" (1974).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

SHRINKAGE = 0.01  # share of the mean variance added to each, so that low-variance directions do not dominate
MAX_GROUPS = 128  # beyond this number of channels, neighbouring channels are hidden together
FOLDS = 4
LIMIT_QUANTILE = 0.9
LIMIT_WEIGHT = 3.0  # a group at its limit has a surprise of log(1 + LIMIT_WEIGHT)
LIMIT_FLOOR = 1e-3
MAX_SQUARE = 1e30  # keeps the surprise of an extreme reading finite
BLOCK_WINDOWS = 4096


@dataclass(frozen=True)
class ConditionalGaussian:
    """Gaussian distribution of standardised windows (n, length, channels), which `standardise` has compressed.

    `centre`: (length, channels). `precision`: (values, values) with values = length * channels, row-major in time.
    `factors`: (groups, members, members), with factors @ factors^T = (P_gg)^-1, zero where a group has fewer members.
    `limits`: (groups,), the 90 % quantile of a group's mean square deviation on held-out folds of the normal windows.
    """

    centre: NDArray[np.float64]
    precision: NDArray[np.float64]
    factors: NDArray[np.float64]
    limits: NDArray[np.float64]

    @classmethod
    def fit(cls, windows: NDArray[np.float64], observed: NDArray[np.bool_] | None = None) -> Self:
        """Fit on two or more normal windows (n, length, channels), in the order of time.

        Missing values, where `observed` (n, length, channels) is false, are imputed by a first fit in which they have
        their mean. Imputed values vary less than measured ones. Therefore variances come from the observed values
        only, and limits from windows in which a group was observed; rarely measured channels are not anomalous.
        """
        if observed is None or observed.all():
            return cls._fit_complete(windows, None)
        filled = np.where(observed, windows, 0.0)
        return cls._fit_complete(cls._fit_complete(filled, observed).impute(filled, observed), observed)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the model that `to_arrays` wrote; raises KeyError or ValueError for other arrays."""
        shape = np.shape(arrays["centre"])
        if len(shape) != 2 or np.shape(arrays["precision"]) != (shape[0] * shape[1],) * 2:
            raise ValueError("the precision matrix does not fit the windows")
        precision = np.asarray(arrays["precision"], dtype=np.float64)
        factors = _factors(precision, shape)
        if np.shape(arrays["limits"]) != (len(factors),):
            raise ValueError("there is not one limit for each group of channels")
        centre, limits = (np.asarray(arrays[name], dtype=np.float64) for name in ("centre", "limits"))
        return cls(centre, precision, factors, limits)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the contents as named arrays; the matrix in single precision, to which `fit` rounds it as well."""
        return {"centre": self.centre, "precision": self.precision.astype(np.float32), "limits": self.limits}

    @property
    def groups(self) -> int:
        """Number of groups of channels that are hidden in turn."""
        return len(self.limits)

    def impute(self, windows: NDArray[np.float64], observed: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the windows (n, length, channels) with missing values at their mean given the observed values.

        A window without observed values becomes the centre. Windows that miss the same values share one solution.
        """
        flat = (windows - self.centre).reshape(len(windows), -1)
        seen = observed.reshape(len(windows), -1)
        flat = np.where(seen, flat, 0.0)
        patterns, pattern_of = np.unique(seen, axis=0, return_inverse=True)
        for index, pattern in enumerate(patterns):
            if pattern.all():
                continue
            rows, hidden = np.flatnonzero(pattern_of.ravel() == index), ~pattern
            pull = flat[np.ix_(rows, pattern)] @ self.precision[np.ix_(pattern, hidden)]
            flat[np.ix_(rows, hidden)] = -np.linalg.solve(self.precision[np.ix_(hidden, hidden)], pull.T).T
        return np.where(observed, windows, flat.reshape(windows.shape) + self.centre)

    def shifts(self, windows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return each value minus its imputation from the other groups, (n, length, channels), of imputed windows."""
        length, channels = self.centre.shape
        parts = [np.empty((0, length * channels))]
        for pulls in self._pulls(windows):
            shifts = np.einsum("nga,gab,gcb->ngc", pulls, self.factors, self.factors, optimize=True)
            parts.append(_ungrouped(shifts, (length, channels)))
        return np.concatenate(parts).reshape(windows.shape)

    def residuals(self, windows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the distance of each value from its imputation, (n, length, channels), in conditional deviations.

        `windows`: imputed. Missing values have residuals as well, which the caller must mask.
        """
        deviations = np.sqrt(np.maximum(np.einsum("gab,gab->ga", self.factors, self.factors), 1e-12))
        return self.shifts(windows) / _ungrouped(deviations[np.newaxis], self.centre.shape).reshape(self.centre.shape)

    def surprises(self, windows: NDArray[np.float64], observed: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Return how unexpected each group is given the others: (n, groups), 0 if no value of a group was observed.

        The surprise is log(1 + 3 m / limit). Here m is the mean square deviation of the group's observed values from
        their imputation, in units of their conditional covariance. `windows`: imputed where not `observed`.
        """
        squares = self._squares(windows, observed)
        surprises: NDArray[np.float64] = np.log1p(LIMIT_WEIGHT * squares / self.limits)
        return surprises

    @classmethod
    def _fit_complete(cls, windows: NDArray[np.float64], observed: NDArray[np.bool_] | None) -> Self:
        """Fit on windows without gaps; `observed` marks the measured values, None if all were measured."""
        shape = (windows.shape[1], windows.shape[2])
        flat = windows.reshape(len(windows), -1)
        lost = _lost_variance(flat, None if observed is None else observed.reshape(flat.shape))
        folds = np.array_split(np.arange(len(flat)), min(FOLDS, len(flat) // 2)) if len(flat) >= 4 else []
        count, total = len(flat), flat.sum(axis=0)
        scatter = flat.T @ flat
        squares = []
        for fold in folds:
            part = flat[fold]
            without = (count - len(part), total - part.sum(axis=0), scatter - part.T @ part)
            seen = None if observed is None else observed[fold]
            squares.append(cls._of_moments(*without, lost, shape)._squares(windows[fold], seen))
        fitted = cls._of_moments(count, total, scatter, lost, shape)
        judged = np.concatenate(squares) if squares else fitted._squares(windows, observed)
        return cls(fitted.centre, fitted.precision, fitted.factors, _limits(judged, observed))

    @classmethod
    def _of_moments(
        cls,
        count: int,
        total: NDArray[np.float64],
        scatter: NDArray[np.float64],
        lost: NDArray[np.float64],
        shape: tuple[int, int],
    ) -> Self:
        """Return the model of windows with these moments, with limits of 1.

        `count`: number of windows. `total`: their sum (values,). `scatter`: sum of products (values, values). `lost`:
        variance that imputation removed from each value (values,).
        """
        mean = total / count
        covariance = scatter / count - np.outer(mean, mean) + np.diag(lost)
        shrinkage = SHRINKAGE * max(float(np.trace(covariance)) / len(mean), 1e-6)
        precision = np.linalg.inv(covariance + shrinkage * np.eye(len(mean)))
        rounded = np.asarray((precision + precision.T) / 2, dtype=np.float32)  # as `to_arrays` stores it
        matrix = np.asarray(rounded, dtype=np.float64)
        factors = _factors(matrix, shape)
        return cls(mean.reshape(shape), matrix, factors, np.ones(len(factors)))

    def _squares(self, windows: NDArray[np.float64], observed: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        """Return the mean square conditional deviation of each group: (n, groups)."""
        if observed is None or observed.all():
            return self._squares_of_complete(windows)
        parts = [np.empty((0, self.groups))]
        for start, pulls in zip(range(0, len(windows), BLOCK_WINDOWS), self._pulls(windows), strict=True):
            seen = observed[start : start + BLOCK_WINDOWS].reshape(len(pulls), -1)
            counts = _grouped(seen.astype(np.float64), self.centre.shape)
            whitened = np.einsum("nga,gab->ngb", pulls * counts, self.factors, optimize=True)
            parts.append(np.square(whitened).sum(axis=2) / np.maximum(counts.sum(axis=2), 1.0))
        return np.minimum(np.concatenate(parts), MAX_SQUARE)

    def _squares_of_complete(self, windows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return `_squares` of windows without gaps, where a device spends most of its time."""
        parts = [np.empty((0, self.groups))]
        members = self.factors.shape[1]
        counts = _grouped(np.ones((1, self.centre.size)), self.centre.shape).sum(axis=2)
        for start in range(0, len(windows), BLOCK_WINDOWS):
            block = windows[start : start + BLOCK_WINDOWS]
            whitened = (block - self.centre).reshape(len(block), -1) @ self.whitening
            whitened = whitened.reshape(len(block), self.groups, members)
            parts.append(np.einsum("ngm,ngm->ng", whitened, whitened) / counts)
        return np.minimum(np.concatenate(parts), MAX_SQUARE)

    @cached_property
    def members(self) -> NDArray[np.int64]:
        """Positions of the values in each group: (groups, members), padded with the number of values."""
        count = self.centre.size
        numbers = _grouped(np.arange(1, count + 1, dtype=np.float64)[np.newaxis], self.centre.shape)[0].astype(np.int64)
        return np.where(numbers > 0, numbers - 1, count)

    @cached_property
    def whitening(self) -> NDArray[np.float64]:
        """Matrix (values, groups * members) from centred values to the whitened deviations of all groups."""
        pulls = _grouped(self.precision, self.centre.shape)
        whitening = np.einsum("vga,gab->vgb", pulls, self.factors)
        return np.ascontiguousarray(whitening.reshape(len(self.precision), -1))

    def _pulls(self, windows: NDArray[np.float64]) -> Any:
        """Yield P (x - centre) by group for blocks of windows: (block, groups, members)."""
        for start in range(0, len(windows), BLOCK_WINDOWS):
            block = windows[start : start + BLOCK_WINDOWS]
            flat = (block - self.centre).reshape(len(block), -1)
            yield _grouped(flat @ self.precision, self.centre.shape)


def group_maxima(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest value of each group of channels, (n, groups), from values (n, channels) of at least 0."""
    largest: NDArray[np.float64] = _grouped(values, (1, values.shape[1])).max(axis=2)
    return largest


def _lost_variance(flat: NDArray[np.float64], observed: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """Return the variance of observed minus that of all values (values,) in windows `flat` (n, values)."""
    if observed is None:
        return np.zeros(flat.shape[1])
    counts = observed.sum(axis=0)
    means = np.where(observed, flat, 0.0).sum(axis=0) / np.maximum(counts, 1)
    measured = np.where(observed, np.square(flat - means), 0.0).sum(axis=0) / np.maximum(counts, 1)
    lost: NDArray[np.float64] = np.maximum(measured - flat.var(axis=0), 0.0)
    return lost


def _limits(squares: NDArray[np.float64], observed: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """Return LIMIT_QUANTILE of each group's mean squares (n, groups) over windows that observed it, else over all."""
    if observed is None:
        usual: NDArray[np.float64] = np.maximum(np.quantile(squares, LIMIT_QUANTILE, axis=0), LIMIT_FLOOR)
        return usual
    shape = (observed.shape[1], observed.shape[2])
    seen = _grouped(observed.reshape(len(observed), -1).astype(np.float64), shape).sum(axis=2) > 0
    every = float(np.quantile(squares[seen], LIMIT_QUANTILE)) if seen.any() else 1.0
    limits = [
        np.quantile(column[rows], LIMIT_QUANTILE) if rows.any() else every
        for column, rows in zip(squares.T, seen.T, strict=True)
    ]
    result: NDArray[np.float64] = np.maximum(np.array(limits), LIMIT_FLOOR)
    return result


def _group_width(channels: int) -> int:
    return -(-channels // MAX_GROUPS)


def _grouped(flat: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Reshape (n, length * channels) to (n, groups, width * length): neighbouring channels, padded with zeros."""
    length, channels = shape
    width = _group_width(channels)
    groups = -(-channels // width)
    values = flat.reshape(-1, length, channels).transpose(0, 2, 1)
    padded = np.zeros((len(values), groups * width, length))
    padded[:, :channels] = values
    return padded.reshape(len(values), groups, width * length)


def _ungrouped(grouped: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Invert `_grouped`: return (n, length * channels)."""
    length, channels = shape
    values = grouped.reshape(len(grouped), -1, length)[:, :channels]
    return values.transpose(0, 2, 1).reshape(len(grouped), -1)


def _factors(precision: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return Cholesky factors of the conditional covariances (P_gg)^-1: (groups, members, members)."""
    length, channels = shape
    numbers = np.arange(1, length * channels + 1, dtype=np.float64)[np.newaxis]  # from 1 on: 0 is padding
    positions = _grouped(numbers, shape)[0].astype(np.intp) - 1
    groups, members = positions.shape
    factors = np.zeros((groups, members, members))
    for group, at in enumerate(positions):
        used = np.flatnonzero(at >= 0)
        block = precision[np.ix_(at[used], at[used])]
        factors[group][np.ix_(used, used)] = np.linalg.cholesky(np.linalg.inv(block))
    return factors
