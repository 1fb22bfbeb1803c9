"""Calibration by operating mode, so that the false-alarm rate holds in each mode and not only on average.

A score that is common at full load may be anomalous at idle. Each mode with enough held-out normals has a calibration
of its own (Mondrian conformal prediction: Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World" (2005),
section 4.5); given the mode of each sample, its p-values are as valid as those of `calibration`.

Known modes with too few held-out normals share one calibration, which is valid for them as a group. If the group has
too few as well, or the mode is not in the training data, the p-value is the smallest that any calibration gives.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shared.calibration import MIN_CALIBRATION_SIZE, Calibration, PValues
from shared.errors import DataError

UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class CalibrationByMode:
    """Calibrations of the operating modes.

    `by_mode`: calibration of each frequent mode (0, 1, ...). `rest`: shared calibration of the known modes in `rare`.
    Without modes only `rest` exists and applies to every sample.
    """

    by_mode: Mapping[int, Calibration]
    rest: Calibration | None
    rare: frozenset[int] = field(default_factory=frozenset)

    @classmethod
    def fit(cls, normal_scores: ArrayLike, modes: NDArray[np.int64] | None = None) -> Self:
        """Fit on scores (n,) of held-out normal samples, whose `modes` (n,) are UNKNOWN for a mode not trained on.

        Raises DataError for fewer than MIN_CALIBRATION_SIZE scores in all, or for one that is not finite.
        """
        scores = np.asarray(normal_scores, dtype=np.float64).ravel()
        if modes is None:
            return cls({}, Calibration.fit(scores))
        counts = {int(mode): int(np.count_nonzero(modes == mode)) for mode in np.unique(modes) if mode != UNKNOWN}
        common = [mode for mode, count in counts.items() if count >= MIN_CALIBRATION_SIZE]
        rare = frozenset(counts) - frozenset(common)
        among_rare = np.isin(modes, sorted(rare))
        if not common:
            return cls({}, Calibration.fit(scores))
        rest = Calibration.fit(scores[among_rare]) if np.count_nonzero(among_rare) >= MIN_CALIBRATION_SIZE else None
        own = {mode: Calibration.fit(scores[modes == mode]) for mode in common}
        return cls(own, rest, rare if rest is not None else frozenset())

    def p_values(self, scores: ArrayLike, modes: NDArray[np.int64] | None = None) -> PValues:
        """Return p-values as `Calibration.p_values`, by mode; `modes`: (batch,), None if unknown."""
        asked = np.atleast_1d(np.asarray(scores, dtype=np.float64))
        values, extrapolated = np.ones(len(asked)), np.zeros(len(asked), dtype=np.bool_)
        for rows, calibrations in self._by_mode(modes):
            for calibration in calibrations:
                found = calibration.p_values(asked[rows])
                smaller = found.values < values[rows]
                extrapolated[rows] = np.where(smaller, found.extrapolated, extrapolated[rows])
                values[rows] = np.minimum(values[rows], found.values)
        return PValues(values, extrapolated)

    def surprise(self, scores: ArrayLike, modes: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Return -log p as `Calibration.surprise`, by mode; the largest of all calibrations for an unknown mode."""
        asked = np.atleast_1d(np.asarray(scores, dtype=np.float64))
        result = np.zeros(len(asked))
        for rows, calibrations in self._by_mode(modes):
            result[rows] = np.max([calibration.surprise(asked[rows]) for calibration in calibrations], axis=0)
        return result

    def threshold(self, rate: float, mode: int = UNKNOWN) -> float:
        """Return the smallest score in that mode whose p-value is at most `rate`; see `Calibration.threshold`."""
        return min(calibration.threshold(rate) for calibration in self._calibrations_of(mode))

    @property
    def coarsest(self) -> Calibration:
        """Calibration with the fewest held-out scores, and of these one without a tail."""
        return min(self._calibrations_of(UNKNOWN), key=lambda one: (len(one.scores), one.tail_scale > 0))

    def held_out(self, mode: int = UNKNOWN) -> int:
        """Return the number of held-out scores of the calibration that applies to a mode; the fewest of several."""
        return min(len(calibration.scores) for calibration in self._calibrations_of(mode))

    @property
    def calibration_id(self) -> str:
        """Short hash of the contents; without modes that of the only calibration."""
        if not self.by_mode and self.rest is not None:
            return self.rest.calibration_id
        parts = [f"{mode}={calibration.calibration_id}" for mode, calibration in sorted(self.by_mode.items())]
        parts += [f"{sorted(self.rare)}={self.rest.calibration_id}"] if self.rest is not None else []
        return hashlib.sha256(";".join(parts).encode()).hexdigest()[:12]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the contents as named arrays, for a bundle; without modes those of the only calibration."""
        arrays: dict[str, NDArray[Any]] = dict(self.rest.to_arrays()) if self.rest is not None else {}
        for mode, calibration in self.by_mode.items():
            arrays |= {f"mode{mode}.{key}": array for key, array in calibration.to_arrays().items()}
        return arrays | ({"rare_modes": np.array(sorted(self.rare), dtype=np.int64)} if self.by_mode else {})

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the calibration in arrays of `to_arrays` or `Calibration.to_arrays`; raises DataError for others."""
        parts: dict[str, dict[str, NDArray[Any]]] = {}
        for name, array in arrays.items():
            owner, _, key = name.rpartition(".")
            parts.setdefault(owner, {})[key] = array
        plain = parts.pop("", {})
        try:
            own = {int(owner.removeprefix("mode")): Calibration.from_arrays(found) for owner, found in parts.items()}
            rare = frozenset(np.asarray(plain.get("rare_modes", ()), dtype=np.int64).ravel().tolist())
        except ValueError as error:
            raise DataError(f"Not a calibration: {error}.") from None
        rest = Calibration.from_arrays(plain) if "scores" in plain or not own else None
        return cls(own, rest, rare)

    def _calibrations_of(self, mode: int) -> list[Calibration]:
        """Return the calibrations that apply to a mode: its own, or all of them."""
        if mode in self.by_mode:
            return [self.by_mode[mode]]
        if self.rest is not None and (mode in self.rare or not self.by_mode):
            return [self.rest]
        return [*self.by_mode.values(), *([self.rest] if self.rest is not None else [])]

    def _by_mode(self, modes: NDArray[np.int64] | None) -> list[tuple[slice | NDArray[np.intp], list[Calibration]]]:
        """Return the positions of the samples of each mode, and the calibrations that apply to them."""
        if modes is None:
            return [(slice(None), self._calibrations_of(UNKNOWN))]
        given = np.asarray(modes, dtype=np.int64)
        return [(np.flatnonzero(given == mode), self._calibrations_of(int(mode))) for mode in np.unique(given)]
