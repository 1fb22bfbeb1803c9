"""What a channel of a window should read, told from all the others: the normal distribution of whole windows.

Each group of channels (one channel each, where there are few) is hidden in turn and imputed from the rest. For normal
windows with covariance S and precision P = S^-1, what was hidden has the conditional mean and covariance

    E[x_g | rest] = x_g - (P_gg)^-1 (P (x - centre))_g        Cov[x_g | rest] = (P_gg)^-1

so imputing all groups of all windows is one product with P. A missing value is set to its own conditional mean given
all that was observed: it is then as expected, changes nothing of what the observed ones say, and is not scored.

Sources: Lauritzen, "Graphical Models" (1996), proposition C.5; out-of-fold limits: Stone, "Cross-validatory choice and
assessment of statistical predictions" (1974).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

SHRINKAGE = 0.01  # share of the mean variance added to each: without it a faint direction decides everything
MAX_GROUPS = 128  # with more channels than this, neighbouring ones are hidden together
FOLDS = 4
LIMIT_QUANTILE = 0.9
LIMIT_WEIGHT = 3.0  # a group at its limit has a surprise of log(1 + LIMIT_WEIGHT)
LIMIT_FLOOR = 1e-3
MAX_SQUARE = 1e30  # keeps the surprise of a huge reading finite
ROWS_A_BLOCK = 4096


@dataclass(frozen=True)
class ConditionalGaussian:
    """The normal distribution of standardised windows (n, length, channels), compressed so that no value is huge.

    `centre`: (length, channels). `precision`: (values, values) with values = length * channels, row-major in time.
    `factors`: (groups, members, members), with factors @ factors^T = (P_gg)^-1, zero where a group has fewer members.
    `limits`: (groups,), the 90 % quantile of a group's mean square deviation on normal windows that were not fitted on.
    """

    centre: NDArray[np.float64]
    precision: NDArray[np.float64]
    factors: NDArray[np.float64]
    limits: NDArray[np.float64]

    @classmethod
    def fit(cls, windows: NDArray[np.float64], observed: NDArray[np.bool_] | None = None) -> Self:
        """Fit on two or more normal windows (n, length, channels), in the order of time.

        Values that were not `observed` (n, length, channels) are imputed by a first fit that takes them for average.
        What is imputed varies less than what is measured, so the variances are those of the observed values, and the
        limits those of windows in which a group was observed; a channel that is seldom measured is not odd for it.
        """
        if observed is None or observed.all():
            return cls._fit_complete(windows, None)
        filled = np.where(observed, windows, 0.0)
        return cls._fit_complete(cls._fit_complete(filled, observed).impute(filled, observed), observed)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """What `to_arrays` wrote; raises KeyError or ValueError if the arrays are not such."""
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
        """The contents as named arrays; the matrix in single precision, as it is used after a fit, too."""
        return {"centre": self.centre, "precision": self.precision.astype(np.float32), "limits": self.limits}

    @property
    def groups(self) -> int:
        """How many groups of channels are hidden in turn."""
        return len(self.limits)

    def impute(self, windows: NDArray[np.float64], observed: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The windows (n, length, channels), what was not observed at its mean given what was; the centre if none was.

        Windows that miss the same values share one solution.
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

    def residuals(self, windows: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far each value lies from what its group is imputed as: (n, length, channels), in its own deviations.

        Of imputed windows: a value that was missing has a residual of its own, to be masked by the caller.
        """
        length, channels = self.centre.shape
        deviations = np.sqrt(np.maximum(np.einsum("gab,gab->ga", self.factors, self.factors), 1e-12))
        parts = [np.empty((0, length * channels))]
        for pulls in self._pulls(windows):
            shifts = np.einsum("nga,gab,gcb->ngc", pulls, self.factors, self.factors, optimize=True) / deviations
            parts.append(_ungrouped(shifts, (length, channels)))
        return np.concatenate(parts).reshape(windows.shape)

    def surprises(self, windows: NDArray[np.float64], observed: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """How unexpected each group is given the others: (n, groups), 0 where nothing of a group was observed.

        log(1 + 3 m / limit), where m is the mean square deviation of the group's observed values from what they are
        imputed as, in units of their conditional covariance. `windows`: imputed where not `observed`.
        """
        squares = self._squares(windows, observed)
        surprises: NDArray[np.float64] = np.log1p(LIMIT_WEIGHT * squares / self.limits)
        return surprises

    @classmethod
    def _fit_complete(cls, windows: NDArray[np.float64], observed: NDArray[np.bool_] | None) -> Self:
        """From windows without gaps; `observed` says which of their values were measured."""
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
        """From the number of windows, their sum (values,), their sum of products (values, values) and what each value
        varies more than these say (values,); limits of 1."""
        mean = total / count
        covariance = scatter / count - np.outer(mean, mean) + np.diag(lost)
        shrinkage = SHRINKAGE * max(float(np.trace(covariance)) / len(mean), 1e-6)
        precision = np.linalg.inv(covariance + shrinkage * np.eye(len(mean)))
        rounded = np.asarray((precision + precision.T) / 2, dtype=np.float32)  # as it will be stored
        matrix = np.asarray(rounded, dtype=np.float64)
        factors = _factors(matrix, shape)
        return cls(mean.reshape(shape), matrix, factors, np.ones(len(factors)))

    def _squares(self, windows: NDArray[np.float64], observed: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        """Mean square conditional deviation of each group: (n, groups)."""
        if observed is None or observed.all():
            return self._squares_of_complete(windows)
        parts = [np.empty((0, self.groups))]
        for start, pulls in zip(range(0, len(windows), ROWS_A_BLOCK), self._pulls(windows), strict=True):
            seen = observed[start : start + ROWS_A_BLOCK].reshape(len(pulls), -1)
            counts = _grouped(seen.astype(np.float64), self.centre.shape)
            whitened = np.einsum("nga,gab->ngb", pulls * counts, self.factors, optimize=True)
            parts.append(np.square(whitened).sum(axis=2) / np.maximum(counts.sum(axis=2), 1.0))
        return np.minimum(np.concatenate(parts), MAX_SQUARE)

    def _squares_of_complete(self, windows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same of windows without gaps: a device spends most of its time on these."""
        parts = [np.empty((0, self.groups))]
        members = self.factors.shape[1]
        counts = _grouped(np.ones((1, self.centre.size)), self.centre.shape).sum(axis=2)
        for start in range(0, len(windows), ROWS_A_BLOCK):
            block = windows[start : start + ROWS_A_BLOCK]
            whitened = (block - self.centre).reshape(len(block), -1) @ self.whitening
            whitened = whitened.reshape(len(block), self.groups, members)
            parts.append(np.einsum("ngm,ngm->ng", whitened, whitened) / counts)
        return np.minimum(np.concatenate(parts), MAX_SQUARE)

    @cached_property
    def members(self) -> NDArray[np.int64]:
        """(groups, members): which values are in a group, the number of values where there are fewer than members."""
        count = self.centre.size
        numbers = _grouped(np.arange(1, count + 1, dtype=np.float64)[np.newaxis], self.centre.shape)[0].astype(np.int64)
        return np.where(numbers > 0, numbers - 1, count)

    @cached_property
    def whitening(self) -> NDArray[np.float64]:
        """(values, groups * members): from centred values to the whitened deviations of all groups, in one product."""
        pulls = _grouped(self.precision, self.centre.shape)
        whitening = np.einsum("vga,gab->vgb", pulls, self.factors)
        return np.ascontiguousarray(whitening.reshape(len(self.precision), -1))

    def _pulls(self, windows: NDArray[np.float64]) -> Any:
        """P (x - centre) by group, block by block of windows: (block, groups, members)."""
        for start in range(0, len(windows), ROWS_A_BLOCK):
            block = windows[start : start + ROWS_A_BLOCK]
            flat = (block - self.centre).reshape(len(block), -1)
            yield _grouped(flat @ self.precision, self.centre.shape)


def _lost_variance(flat: NDArray[np.float64], observed: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """How much more the observed values (n, values) vary than all with the imputed ones: (values,)."""
    if observed is None:
        return np.zeros(flat.shape[1])
    counts = observed.sum(axis=0)
    means = np.where(observed, flat, 0.0).sum(axis=0) / np.maximum(counts, 1)
    measured = np.where(observed, np.square(flat - means), 0.0).sum(axis=0) / np.maximum(counts, 1)
    lost: NDArray[np.float64] = np.maximum(measured - flat.var(axis=0), 0.0)
    return lost


def _limits(squares: NDArray[np.float64], observed: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """LIMIT_QUANTILE of each group's mean squares (n, groups) over windows that observed any of it, else of all."""
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
    """(n, length * channels) as (n, groups, width * length): neighbouring channels, padded with zeros."""
    length, channels = shape
    width = _group_width(channels)
    groups = -(-channels // width)
    values = flat.reshape(-1, length, channels).transpose(0, 2, 1)
    padded = np.zeros((len(values), groups * width, length))
    padded[:, :channels] = values
    return padded.reshape(len(values), groups, width * length)


def _ungrouped(grouped: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The inverse of `_grouped`: (n, length * channels)."""
    length, channels = shape
    values = grouped.reshape(len(grouped), -1, length)[:, :channels]
    return values.transpose(0, 2, 1).reshape(len(grouped), -1)


def _factors(precision: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """(groups, members, members): roots of the conditional covariances (P_gg)^-1."""
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
