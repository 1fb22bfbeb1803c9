"""Calibration that follows slow drift of normal scores, within stated limits.

The calibration of training turns a score into a surprise s = -log p, which has the distribution Exp(1) on normal
samples. After a drift it has another one. `AdaptiveCalibration` estimates that distribution from recent samples and
returns p-values under it:

1. Reservoir. Weights over bins of s, bounded in memory, hold the samples that count as normal. A weight decays by
   1 - 1/memory with each new sample (weighted conformal prediction, Barber, Candès, Ramdas & Tibshirani, "Conformal
   prediction beyond exchangeability", Annals of Statistics 2023, eq. 7). The reservoir starts with the weights of
   training.
2. Selection. A sample with a small p-value is withheld: it may be an anomaly. It enters once a verdict or a person
   clears it, as an error in adaptive conformal inference does (Gibbs & Candès, "Adaptive conformal inference under
   distribution shift", NeurIPS 2021, eq. 2). Without its withheld part the reservoir is truncated, and thresholds would
   fall with every sample. Withheld samples without an answer therefore share the weight that normal samples have there
   by the definition of a p-value. Audits, a random share of the accepted samples, are the unbiased part: one that is
   anomalous takes its weight over their share out of the reservoir.
3. Limits. The curve of log p moves by at most `max_move` within one memory, and lies at most `max_unconfirmed` from
   that of training. Cleared samples alone may move it farther: to the p-values that their own weight gives. So a
   fault that creeps in is learned for `max_unconfirmed` at most, and then withheld as any other anomaly.

p = (1 + weight at or above s) / (1 + total weight); beyond the weight of TAIL_WEIGHT samples an exponential tail goes
on, whose mean excess is drawn towards that of training.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shared.errors import DataError

BIN_WIDTH, BINS = 0.02, 600  # in log(1 + s); the last bin ends at s = 160,000
TAIL_SHARE, TAIL_WEIGHT = 0.1, 3.0
TRAINING_TAIL_WEIGHT = 10.0  # samples that the tail of training counts as beside those of the reservoir
MAX_TRAINING_WEIGHT = 200.0

_EDGES = np.expm1(np.arange(BINS + 1) * BIN_WIDTH)
_TRAINING_SHARES = np.exp(-_EDGES[:-1]) - np.exp(-_EDGES[1:])
_WIDTHS = np.diff(_EDGES)
_CENTRES = _EDGES[:-1] + _WIDTHS / 2

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AdaptationLimits:
    """Limits of the adaptation.

    `memory`: samples over which weights decay to 1/e. `withheld_p`: p-values up to this are withheld until cleared.
    `max_move`: nats of log p within one memory; `max_unconfirmed`: nats from training without cleared samples.
    """

    memory: float = 2000.0
    withheld_p: float = 0.05
    max_move: float = 2.3
    max_unconfirmed: float = 1.6


class AdaptiveCalibration:
    """p-values of one score that follow its distribution; used by one thread.

    `training_size`: held-out samples of the training calibration. `moved`: nats by which log p at `withheld_p` now
    lies above that of training.
    """

    def __init__(self, training_size: int, limits: AdaptationLimits) -> None:
        self.limits = limits
        weight = min(float(training_size), MAX_TRAINING_WEIGHT)
        self._normal = _TRAINING_SHARES * weight
        self._cleared = np.zeros(BINS)  # part of `_normal`
        self._withheld = np.zeros(BINS)
        self._training_tail = limits.withheld_p * weight  # weight of training that is left where samples are withheld
        self._curve = -_EDGES.copy()  # log p at the edges, as it is used
        self._unapplied = 0.0  # samples since the curve last moved, in memories

    def p_values(self, surprise: ArrayLike) -> Floats:
        """Return p-values (n,) of surprises (n,) in the order of the surprises."""
        return np.exp(self._log_p(np.asarray(surprise, dtype=np.float64)))

    def observe(self, surprise: ArrayLike, memory: float = 0.0) -> NDArray[np.bool_]:
        """Add screened samples (n,); return which are withheld. `memory` in samples; 0: that of the limits."""
        values = np.asarray(surprise, dtype=np.float64)
        memory = max(memory, self.limits.memory)
        if not len(values):
            return np.zeros(0, np.bool_)
        withheld: NDArray[np.bool_] = self._log_p(values) <= np.log(self.limits.withheld_p)
        kept = np.exp(-len(values) / memory)
        age = np.exp(-np.arange(len(values))[::-1] / memory)
        places = _bin_of(values)
        for weights in (self._normal, self._cleared, self._withheld):
            weights *= kept
        self._training_tail *= kept
        np.add.at(self._normal, places[~withheld], age[~withheld])
        np.add.at(self._withheld, places[withheld], age[withheld])
        self._unapplied += len(values) / memory
        return withheld

    def answer(self, surprise: ArrayLike, is_normal: ArrayLike, weight: float = 1.0) -> None:
        """Take withheld samples (n,) out, and those that are normal in; `weight`: samples that each stands for."""
        places, normal = _bin_of(np.asarray(surprise, dtype=np.float64)), np.asarray(is_normal, dtype=np.bool_)
        np.subtract.at(self._withheld, places, weight)
        np.maximum(self._withheld, 0.0, out=self._withheld)
        for weights in (self._normal, self._cleared):
            np.add.at(weights, places[normal], weight)

    def reject(self, surprise: float, weight: float) -> None:
        """Take out an accepted sample that an audit found anomalous; it stands for `weight` accepted samples.

        The weight leaves the bins from that of the sample upwards.
        """
        place = int(_bin_of(np.array([surprise]))[0])
        held = self._normal[place:]
        held -= np.clip(weight - (np.cumsum(held) - held), 0.0, held)

    def move(self) -> None:
        """Move the curve towards the distribution of the reservoir, as far as the limits allow."""
        weights = self._normal + self._expected_of_withheld()
        total = float(weights.sum())
        target = _log_p_of(weights, total)
        cleared = np.log(_at_or_above(self._cleared) / (total + 1.0) + 1e-300)
        farthest, step = self.limits.max_unconfirmed, self.limits.max_move * self._unapplied
        high = np.minimum(-_EDGES + farthest, self._curve + step)
        low = np.maximum(-_EDGES - farthest, self._curve - step)
        self._curve = np.clip(target, low, np.maximum(high, np.minimum(cleared, 0.0)))
        self._unapplied = 0.0

    def to_arrays(self) -> dict[str, Floats]:
        """Return the state as named arrays, for a file."""
        return {
            "weights": np.stack([self._normal, self._cleared, self._withheld]),
            "curve": self._curve,
            "rest": np.array([self._training_tail, self._unapplied]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], limits: AdaptationLimits) -> Self:
        """Return the calibration whose state `to_arrays` gave; raises DataError for other arrays."""
        try:
            weights, curve = np.asarray(arrays["weights"], np.float64), np.asarray(arrays["curve"], np.float64)
            rest = np.asarray(arrays["rest"], np.float64)
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"Not the state of a calibration: {error}.") from None
        is_sound = (weights.shape, curve.shape, rest.shape) == ((3, BINS), (BINS + 1,), (2,)) and bool(
            np.all(weights >= 0)
        )
        if not (is_sound and np.isfinite([weights.sum(), curve.sum(), rest.sum()]).all()):
            raise DataError("Not the state of a calibration: its weights or its curve are invalid.")
        result = cls(0, limits)
        result._normal, result._cleared, result._withheld = weights
        result._curve, (result._training_tail, result._unapplied) = curve, rest.tolist()
        return result

    @property
    def moved(self) -> float:
        """Nats that log p lies above that of training, at the score where training gives `withheld_p`."""
        at = -np.log(self.limits.withheld_p)
        return float(self._log_p(np.array([at]))[0] + at)

    def _expected_of_withheld(self) -> Floats:
        waiting = float(self._withheld.sum())
        if waiting <= 0:
            return self._withheld
        share, known = self.limits.withheld_p, float(self._cleared.sum()) + self._training_tail
        accepted = float(self._normal.sum()) - known
        expected = max(share * accepted / (1.0 - share) - known, 0.0)
        return self._withheld * min(1.0, expected / waiting)

    def _log_p(self, values: Floats) -> Floats:
        finite = np.clip(values, 0.0, _EDGES[-1])
        result: Floats = np.minimum(np.interp(finite, _EDGES, self._curve), 0.0)
        return result


def _bin_of(values: Floats) -> NDArray[np.intp]:
    places: NDArray[np.intp] = np.minimum(np.log1p(np.maximum(values, 0.0)) / BIN_WIDTH, BINS - 1).astype(np.intp)
    return places


def _at_or_above(weights: Floats) -> Floats:
    """Return the weight (BINS + 1,) at or above each edge."""
    return np.append(np.cumsum(weights[::-1])[::-1], 0.0)


def _log_p_of(weights: Floats, total: float) -> Floats:
    """Return log p (BINS + 1,) at the edges, under the weights and their exponential tail."""
    above = _at_or_above(weights)
    log_p = np.log((above + 1.0) / (total + 1.0))
    start = int(np.flatnonzero(above >= TAIL_SHARE * total)[-1])
    excess = float((weights[start:] * (_CENTRES[start:] - _EDGES[start])).sum())
    scale = (excess + TRAINING_TAIL_WEIGHT) / (float(above[start]) + TRAINING_TAIL_WEIGHT)
    end = int(np.flatnonzero(above >= min(TAIL_WEIGHT, TAIL_SHARE * total))[-1])
    log_p[end:] = log_p[end] - (_EDGES[end:] - _EDGES[end]) / scale
    return log_p
