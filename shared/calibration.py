"""Calibration of raw scores to p-values: split conformal, with a generalised Pareto tail beyond the largest score.

A calibration belongs to one artefact on one engine and is fitted on held-out normal data only.

Sources: split conformal p-values: Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World" (2005), and
Bates et al., "Testing for outliers with conformal p-values" (2023), eq. 1. Peaks over threshold: Pickands (1975);
probability-weighted moments: Hosking & Wallis, "Parameter and quantile estimation for the generalized Pareto
distribution" (1987), eq. 5.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shared.errors import DataError

MIN_P_VALUE = 1e-12
MAX_SCORE = 1e30  # stands for infinity where scores are interpolated
MIN_CALIBRATION_SIZE = 20
MIN_TRAINING_SIZE = 20  # normal samples to train on, beside those to calibrate on
TAIL_SHARE = 0.1
MIN_TAIL_SIZE = 10
MAX_TAIL_SHAPE = 0.9
EXPONENTIAL_SHAPE = 1e-9  # smaller shapes count as 0: the exponential tail


@dataclass(frozen=True, slots=True)
class PValues:
    """p-values of a batch: `values` (batch,) float64 in (0, 1]; `extrapolated` (batch,) bool, from the fitted tail."""

    values: NDArray[np.float64]
    extrapolated: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Calibration:
    """The held-out normal scores of one artefact and the tail fitted to the largest of them.

    `scores`: (n,) float64, ascending. Beyond `tail_start` the excess follows a generalised Pareto distribution of
    scale `tail_scale` (in score units; 0: no tail, since all scores are equal) and shape `tail_shape` (at least 0:
    the tail never ends).
    """

    scores: NDArray[np.float64]
    tail_start: float
    tail_scale: float
    tail_shape: float

    @classmethod
    def fit(cls, normal_scores: ArrayLike) -> Self:
        """Fit on scores (n,) of held-out normal samples; higher means more anomalous.

        Raises DataError for fewer than MIN_CALIBRATION_SIZE scores, or for one that is not finite.
        """
        scores = np.sort(np.asarray(normal_scores, dtype=np.float64).ravel())
        if len(scores) < MIN_CALIBRATION_SIZE:
            raise DataError(
                f"Calibration needs at least {MIN_CALIBRATION_SIZE} held-out normal samples, not {len(scores)}: "
                "give more normal data."
            )
        with np.errstate(over="ignore"):
            tail = _fit_tail(scores) if np.isfinite(scores).all() else (np.nan,)
        if not np.isfinite(tail).all():
            raise DataError("A calibration score is not finite: look for constant or huge values in the normal data.")
        return cls(scores, *tail)

    def p_values(self, scores: ArrayLike) -> PValues:
        """Return the expected share of normal samples that score at least this high; NaN gets the smallest p-value.

        Up to the largest calibration score the p-value is (1 + #{calibration scores >= score}) / (n + 1), which is
        valid for any score distribution. Beyond it the fitted tail divides the remaining 1 / (n + 1), down to
        MIN_P_VALUE. A higher score never has a higher p-value.
        """
        asked = np.asarray(scores, dtype=np.float64)
        asked = np.where(np.isnan(asked), np.inf, asked)
        size = len(self.scores)
        values = np.asarray((1.0 + size - np.searchsorted(self.scores, asked, side="left")) / (size + 1.0))
        beyond = asked > self.scores[-1]
        if self.tail_scale > 0:
            values[beyond] = np.exp(-self._beyond_largest(asked[beyond])) / (size + 1.0)
            extrapolated = beyond
        else:
            extrapolated = np.zeros_like(beyond)
        return PValues(np.maximum(values, MIN_P_VALUE), extrapolated)

    def surprise(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return -log p of scores (n,) without the steps and the floor of `p_values`; fusion combines these.

        Values between calibration scores are interpolated, because steps would tie samples with different scores.
        Beyond the largest calibration score the tail has no floor, so two distant anomalies keep their order. NaN
        counts as the largest finite score.
        """
        asked = np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=MAX_SCORE, posinf=MAX_SCORE, neginf=-MAX_SCORE)
        known, first_of_ties = np.unique(self.scores, return_index=True)
        size = len(self.scores)
        within = -np.interp(asked, known, np.log((1.0 + size - first_of_ties) / (size + 1.0)))
        if self.tail_scale <= 0:
            return np.where(asked > known[-1], np.log(size + 1.0), within)
        beyond = np.log(size + 1.0) + self._beyond_largest(np.maximum(asked, known[-1]))
        return np.where(asked > known[-1], beyond, within)

    def threshold(self, rate: float) -> float:
        """Return the smallest score whose p-value is at most `rate`, the false-alarm rate per sample.

        Returns infinity if no score is high enough: the calibration scores are equal, or differ by less than the
        smallest normal float64, and `rate` is below 1 / (n + 1).
        Raises DataError unless MIN_P_VALUE <= rate < 1.
        """
        if not MIN_P_VALUE <= rate < 1:
            raise DataError(f"A false-alarm rate must lie between {MIN_P_VALUE} and 1, and is {rate}.")
        size = len(self.scores)
        at_or_above = int(rate * (size + 1.0))  # number of calibration scores, plus one for the sample itself
        while (at_or_above + 1.0) / (size + 1.0) <= rate:  # the product was rounded, and p-values are quotients
            at_or_above += 1
        while at_or_above / (size + 1.0) > rate:
            at_or_above -= 1
        if at_or_above > 0:
            return float(np.nextafter(self.scores[size - at_or_above], np.inf))
        if self.tail_scale <= 0:
            return float(np.inf)
        return self._tail_threshold(rate)

    @property
    def calibration_id(self) -> str:
        """Short hash of the contents; equal calibrations have equal ids."""
        digest = hashlib.sha256(self.scores.astype("<f8").tobytes())
        digest.update(np.array([self.tail_start, self.tail_scale, self.tail_shape], dtype="<f8").tobytes())
        return digest.hexdigest()[:12]

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return the contents as named arrays, for a bundle."""
        return {"scores": self.scores, "tail": np.array([self.tail_start, self.tail_scale, self.tail_shape])}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the calibration that `to_arrays` wrote; raises DataError for other arrays."""
        try:
            scores = np.asarray(arrays["scores"], dtype=np.float64)
            start, scale, shape = (float(x) for x in np.asarray(arrays["tail"], dtype=np.float64))
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"Not a calibration: {error}.") from None
        ordered = scores.ndim == 1 and len(scores) > 0 and bool(np.all(np.diff(scores) >= 0))
        finite = ordered and bool(np.isfinite([*scores[[0, -1]], start, scale, shape]).all())
        if not (finite and start <= scores[-1] and scale >= 0 and shape >= 0):
            raise DataError("Not a calibration: its scores are not ascending, or its tail is invalid.")
        return cls(scores, start, scale, shape)

    def _beyond_largest(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return -log of P(score > s | score > largest calibration score) for scores s (n,)."""
        return self._tail_surprise(scores) - self._tail_surprise(self.scores[-1:])

    def _tail_surprise(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return -log of the share of the tail beyond scores (n,), each at least `tail_start`."""
        with np.errstate(over="ignore"):
            excess = (scores - self.tail_start) / self.tail_scale
        if self.tail_shape > EXPONENTIAL_SHAPE:
            excess = np.log1p(self.tail_shape * excess) / self.tail_shape
        result: NDArray[np.float64] = np.minimum(excess, MAX_SCORE)
        return result

    def _tail_threshold(self, rate: float) -> float:
        """Return the smallest score beyond all calibration scores whose tail p-value is at most `rate`."""
        log_odds = float(self._tail_surprise(self.scores[-1:])[0]) - np.log(rate * (len(self.scores) + 1.0))
        shape = self.tail_shape
        excess = np.expm1(shape * log_odds) / shape if shape > EXPONENTIAL_SHAPE else log_odds
        lowest = float(np.nextafter(self.scores[-1], np.inf))
        score = max(self.tail_start + self.tail_scale * float(excess), lowest)
        step = float(np.spacing(abs(score)))
        while self.p_values(score).values > rate:  # rounding: a few steps at most
            score, step = score + step, 2.0 * step
        return score


def _fit_tail(scores: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return start, scale and shape of the tail by probability-weighted moments; scale 0 if all scores are equal.

    The tail holds TAIL_SHARE of the scores and all ties of the smallest of them, as quantised graphs give many ties.
    """
    size = max(int(len(scores) * TAIL_SHARE), MIN_TAIL_SIZE)
    start = float(scores[max(int(np.searchsorted(scores, scores[-size], side="left")) - 1, 0)])
    excess = scores[scores > start] - start
    if len(excess) == 0:
        return start, 0.0, 0.0
    mean = float(excess.mean())
    # Too few scores to estimate a shape: use the exponential tail of their mean.
    if len(excess) < MIN_TAIL_SIZE:
        return start, mean, 0.0
    weights = 1.0 - (np.arange(1, len(excess) + 1) - 0.35) / len(excess)
    weighted = float((weights * excess).mean())
    denominator = mean - 2.0 * weighted
    shape = 2.0 - mean / denominator if denominator > 0 else MAX_TAIL_SHAPE
    # A negative shape would end the tail at a finite score and make everything beyond it impossible.
    shape = min(max(shape, 0.0), MAX_TAIL_SHAPE)
    return start, mean * (1.0 - shape), shape
