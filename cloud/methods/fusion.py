"""Fusion of the scores of several analyzers into one p-value.

Each analyzer's score becomes a conformal p-value. Fisher's statistic (Statistical Methods for Research Workers, 1932),
weighted where weights are given (Good, "On the weighted combination of significance tests", JRSS B 1955), combines
them. Because the analyzers depend on one another, the statistic is calibrated on normal samples once more.

An analyzer's own calibration, the one shown beside its opinion, uses all held-out samples. For the fused p-value the
held-out samples are split into two halves: alternately, or in time for the windows of a series. The first half
calibrates the members, the second half the fused statistic. A sample of the second half and a new one are then treated
alike, so the fused p-value is a valid split conformal p-value. With too few held-out samples (of a mode) for two
halves, both levels use all of them. The members then underestimate the p-values of the largest held-out scores, by an
error of order 1/n.

All this holds for independent samples. Windows of one series overlap, and their p-values are accurate
only if the held-out stretch resembles the next one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from shared.calibration import MIN_CALIBRATION_SIZE, PValues
from shared.calibration_modes import CalibrationByMode
from shared.errors import DataError

Scores = Mapping[str, NDArray[Any]]
Modes = NDArray[np.int64] | None
_OWN, _MEMBER, _FUSED, _WEIGHT = "own", "hand", "fused", "weight"  # groups in a bundle's file


@dataclass(frozen=True)
class Fusion:
    """Calibrations of analyzers and of their fused statistic.

    Attributes:
        own: Calibration of each analyzer, used for its opinion.
        member_calibrations: Calibration of each fused analyzer, inside the statistic.
        fused: Calibration of the statistic.
        weights: Weight of each fused analyzer; they sum to 1.
    """

    own: Mapping[str, CalibrationByMode]
    member_calibrations: Mapping[str, CalibrationByMode]
    fused: CalibrationByMode
    weights: Mapping[str, float]

    @classmethod
    def fit(
        cls,
        held_out: Scores,
        modes: Modes = None,
        members: Sequence[str] = (),
        *,
        in_order: bool = False,
        worth: Mapping[str, float] | None = None,
    ) -> Self:
        """Fit on the scores (n,) of held-out normal samples, by analyzer.

        Raises DataError for fewer than MIN_CALIBRATION_SIZE samples or scores that are not finite.

        Args:
            held_out: Scores from analyzers that did not learn from the sample.
            modes: Operating modes (n,); each mode is split and calibrated separately.
            members: Analyzers to fuse; empty: all.
            in_order: Whether the samples are windows of a series. Neighbours are near copies, so the earlier half
                calibrates the members and the later half the statistic.
            worth: Value of each member, to which its weight is proportional. Weights are equal without it, or if all
                values are 0.
        """
        size = min(len(scores) for scores in held_out.values())
        first, second = halves(size, modes, in_order)
        own = {name: CalibrationByMode.fit(scores, modes) for name, scores in held_out.items()}
        unknown = set(members) - set(own)
        if unknown:
            raise DataError(f"Fusion: there are no scores of {', '.join(sorted(unknown))}: fit these analyzers too.")
        fused = {name: held_out[name] for name in (members or held_out)}
        calibrations = {name: own[name] for name in fused}
        if len(first) < size:
            first_modes = None if modes is None else modes[first]
            calibrations = {name: CalibrationByMode.fit(scores[first], first_modes) for name, scores in fused.items()}
        second_modes = None if modes is None else modes[second]
        weights = _weights(list(calibrations), worth or {})
        second_scores = {name: scores[second] for name, scores in fused.items()}
        statistic = _fisher(calibrations, weights, second_scores, second_modes)
        return cls(own, calibrations, CalibrationByMode.fit(statistic, second_modes), weights)

    def statistic(self, scores: Scores, modes: Modes = None) -> NDArray[np.float64]:
        """Return the fused score (n,): the weighted mean of -log p; normal samples have a mean of 1."""
        return _fisher(self.member_calibrations, self.weights, scores, modes)

    def least_statistic(self, scores: Scores, modes: Modes = None) -> NDArray[np.float64]:
        """Return the least fused score (n,) that is possible given the scores of some members.

        The -log p of a member is never negative. The sum has the same order as in `statistic`, so that rounding cannot
        make it larger than the score of all members.
        """
        return _fisher(self.member_calibrations, self.weights, scores, modes, missing=0.0)

    def p_values(self, statistic: NDArray[np.float64], modes: Modes = None) -> PValues:
        """Return the p-values of fused scores (n,)."""
        return self.fused.p_values(statistic, modes)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the contents as named arrays, for a bundle."""
        groups = {_OWN: self.own, _MEMBER: self.member_calibrations, _FUSED: {"": self.fused}}
        arrays = {
            f"{group}/{name}/{key}": array
            for group, calibrations in groups.items()
            for name, calibration in calibrations.items()
            for key, array in calibration.to_arrays().items()
        }
        return arrays | {f"{_WEIGHT}/{name}/value": np.array(weight) for name, weight in self.weights.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the fusion that `to_arrays` wrote. Raises DataError for other arrays."""
        found: dict[str, dict[str, dict[str, NDArray[Any]]]] = {}
        for path, array in arrays.items():
            keys = path.split("/")
            if len(keys) != 3:
                raise DataError(f"Not a fusion: unexpected array {path!r}.")
            found.setdefault(keys[0], {}).setdefault(keys[1], {})[keys[2]] = array
        weights = {name: float(values["value"]) for name, values in found.pop(_WEIGHT, {}).items()}
        groups = {
            group: {name: CalibrationByMode.from_arrays(values) for name, values in members.items()}
            for group, members in found.items()
        }
        own, members, fused = groups.get(_OWN, {}), groups.get(_MEMBER, {}), groups.get(_FUSED, {})
        if not members or not set(members) <= set(own) or set(fused) != {""}:
            raise DataError("Not a fusion: a calibration is missing.")
        weights = weights or _weights(list(members), {})
        if set(weights) != set(members) or not all(0 <= weight <= 1 for weight in weights.values()):
            raise DataError("Not a fusion: weights and members do not match.")
        return cls(own, members, fused[""], weights)


def halves(size: int, modes: Modes, in_order: bool) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the positions of both halves of held-out samples, split alternately or in order, by mode.

    The first half calibrates the members, the second one the statistic. A mode with too few samples for two halves is
    in both with all its samples.
    """
    halves: tuple[list[NDArray[np.intp]], list[NDArray[np.intp]]] = ([], [])
    for mode in np.unique(modes) if modes is not None else [None]:
        positions = np.arange(size) if mode is None else np.flatnonzero(modes == mode)
        is_split = len(positions) >= 2 * MIN_CALIBRATION_SIZE
        both = np.array_split(positions, 2) if in_order else [positions[0::2], positions[1::2]]
        for half, chosen in zip(halves, both, strict=True):
            half.append(chosen if is_split else positions)
    return np.sort(np.concatenate(halves[0])), np.sort(np.concatenate(halves[1]))


def _weights(members: Sequence[str], worth: Mapping[str, float]) -> dict[str, float]:
    """Return weights in proportion to worth, which sum to 1."""
    values = {name: max(worth.get(name, 0.0), 0.0) for name in members}
    total = sum(values.values())
    return {name: value / total if total > 0 else 1.0 / len(members) for name, value in values.items()}


def _fisher(
    calibrations: Mapping[str, CalibrationByMode],
    weights: Mapping[str, float],
    scores: Scores,
    modes: Modes,
    missing: float | None = None,
) -> NDArray[np.float64]:
    """Return the weighted mean of -log p over the analyzers: (n,); `missing` stands for those without scores."""
    absent = set(calibrations) - set(scores)
    if absent and (missing is None or len(absent) == len(calibrations)):
        raise DataError(f"Fusion: the scores of {', '.join(sorted(absent))} are missing.")
    size = len(next(iter(scores.values())))
    surprises = [
        np.full(size, missing) if name in absent else weights[name] * calibration.surprise(scores[name], modes)
        for name, calibration in calibrations.items()
    ]
    result: NDArray[np.float64] = np.sum(surprises, axis=0)
    return result
