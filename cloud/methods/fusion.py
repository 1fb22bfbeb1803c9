"""Many opinions, one p-value.

Each analyzer's score becomes a conformal p-value; Fisher's statistic (Statistical Methods for Research Workers, 1932),
with weights where there are any (Good, "On the weighted combination of significance tests", JRSS B 1955), combines
them; and since the analyzers depend on one another, the statistic is calibrated on normals once more.

The split: an analyzer's own calibration, the one shown beside its opinion, uses all held-out normals. For the fused
p-value the held-out normals are dealt into two hands, alternately, or the windows of a series by halves: the first
calibrates the members, the second the fused statistic. A sample of the second hand and a new one are then treated
alike, so the fused p-value is a valid split conformal one. With too few held-out normals (of a mode) for two hands both
levels use all of them; members are then a little too sure of the largest held-out scores, an error of order 1/n. All of
that is for samples independent of one another: windows of one series overlap, and their p-values are as good as the
held-out stretch is like the next.
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
_OWN, _HAND, _FUSED, _WEIGHT = "own", "hand", "fused", "weight"


@dataclass(frozen=True)
class Fusion:
    """Calibrations by analyzer, `own` for their opinions and `hands` inside the fusion, and the `fused` one.

    `weights`: what each of `hands` counts; they sum to 1.
    """

    own: Mapping[str, CalibrationByMode]
    hands: Mapping[str, CalibrationByMode]
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
        """Fit on the scores (n,) of held-out normals by analyzer, each of a model that had not seen the sample.

        `members` are the analyzers whose opinions are fused, all where none are named. With the operating `modes` (n,)
        of the samples each mode is calibrated on its own, and dealt on its own. `in_order`: the samples are windows of
        a series, of which neighbours are near copies, so the earlier half is one hand and the later one the other.
        `worth`: members count in proportion to it, and all the same without it or where it is 0 for all.
        Raises DataError for fewer than MIN_CALIBRATION_SIZE samples or scores that are not finite.
        """
        size = min(len(scores) for scores in held_out.values())
        first, second = _deal(size, modes, in_order)
        own = {name: CalibrationByMode.fit(scores, modes) for name, scores in held_out.items()}
        unknown = set(members) - set(own)
        if unknown:
            raise DataError(f"Fusion of {', '.join(sorted(unknown))}, whose scores it was not given: fit them too.")
        fused = {name: held_out[name] for name in (members or held_out)}
        hands = {name: own[name] for name in fused}
        if len(first) < size:
            of_first = None if modes is None else modes[first]
            hands = {name: CalibrationByMode.fit(scores[first], of_first) for name, scores in fused.items()}
        of_second = None if modes is None else modes[second]
        weights = _weights(list(hands), worth or {})
        statistic = _fisher(hands, weights, {name: scores[second] for name, scores in fused.items()}, of_second)
        return cls(own, hands, CalibrationByMode.fit(statistic, of_second), weights)

    def statistic(self, scores: Scores, modes: Modes = None) -> NDArray[np.float64]:
        """The fused score (n,): the weighted mean of -log p over the analyzers; 1 is the mean of normal samples."""
        return _fisher(self.hands, self.weights, scores, modes)

    def p_values(self, statistic: NDArray[np.float64], modes: Modes = None) -> PValues:
        """Fused p-values of fused scores (n,)."""
        return self.fused.p_values(statistic, modes)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The contents as named arrays, for a bundle."""
        groups = {_OWN: self.own, _HAND: self.hands, _FUSED: {"": self.fused}}
        arrays = {
            f"{group}/{name}/{key}": array
            for group, calibrations in groups.items()
            for name, calibration in calibrations.items()
            for key, array in calibration.to_arrays().items()
        }
        return arrays | {f"{_WEIGHT}/{name}/value": np.array(weight) for name, weight in self.weights.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The fusion that `to_arrays` wrote; raises DataError if the arrays are not such."""
        found: dict[str, dict[str, dict[str, NDArray[Any]]]] = {}
        for path, array in arrays.items():
            parts = path.split("/")
            if len(parts) != 3:
                raise DataError(f"Not a fusion: {path!r} is none of its arrays.")
            found.setdefault(parts[0], {}).setdefault(parts[1], {})[parts[2]] = array
        weights = {name: float(values["value"]) for name, values in found.pop(_WEIGHT, {}).items()}
        groups = {
            group: {name: CalibrationByMode.from_arrays(values) for name, values in members.items()}
            for group, members in found.items()
        }
        own, hands, fused = groups.get(_OWN, {}), groups.get(_HAND, {}), groups.get(_FUSED, {})
        if not hands or not set(hands) <= set(own) or set(fused) != {""}:
            raise DataError("Not a fusion: a calibration is missing.")
        weights = weights or _weights(list(hands), {})
        if set(weights) != set(hands) or not all(0 <= weight <= 1 for weight in weights.values()):
            raise DataError("Not a fusion: its weights are not those of its members.")
        return cls(own, hands, fused[""], weights)


def _deal(size: int, modes: Modes, in_order: bool) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The positions of the two hands, dealt alternately or cut in two, by mode; of a mode with too few, all in both."""
    hands: tuple[list[NDArray[np.intp]], list[NDArray[np.intp]]] = ([], [])
    for mode in np.unique(modes) if modes is not None else [None]:
        of_mode = np.arange(size) if mode is None else np.flatnonzero(modes == mode)
        dealt = len(of_mode) >= 2 * MIN_CALIBRATION_SIZE
        parts = np.array_split(of_mode, 2) if in_order else [of_mode[0::2], of_mode[1::2]]
        for hand, part in zip(hands, parts, strict=True):
            hand.append(part if dealt else of_mode)
    return np.sort(np.concatenate(hands[0])), np.sort(np.concatenate(hands[1]))


def _weights(members: Sequence[str], worth: Mapping[str, float]) -> dict[str, float]:
    """In proportion to worth, summing to 1."""
    values = {name: max(worth.get(name, 0.0), 0.0) for name in members}
    total = sum(values.values())
    return {name: value / total if total > 0 else 1.0 / len(members) for name, value in values.items()}


def _fisher(
    calibrations: Mapping[str, CalibrationByMode], weights: Mapping[str, float], scores: Scores, modes: Modes
) -> NDArray[np.float64]:
    """Weighted mean of -log p over the analyzers, (n,)."""
    missing = set(calibrations) - set(scores)
    if missing:
        raise DataError(f"Fusion needs the scores of every analyzer it was fitted on: {', '.join(sorted(missing))}.")
    surprises = [
        weights[name] * calibration.surprise(scores[name], modes) for name, calibration in calibrations.items()
    ]
    result: NDArray[np.float64] = np.sum(surprises, axis=0)
    return result
