"""Forward threshold that keeps the share of missed anomalies below a limit, by Learn then Test.

A sample stays at a threshold if its p-value is above it. For each threshold of a fixed list, the evidence against "the
share of anomalies among the samples that stay is `limit` or more" is a bet on every sample with a known verdict: the
sample with verdict Y (1: anomalous) that is seen with the probability q multiplies it by 1 + b (limit - Y) / q. Audits
are seen with their probability, forwarded samples with probability 1, so both count as they should. The thresholds are
tested from the largest to the smallest until one fails, each at the same error (fixed sequence testing in Angelopoulos,
Bates, Candès, Jordan and Lei 2021, "Learn then Test"). Bets make each test valid at all times (Waudby-Smith and Ramdas
2024), so the choice may change with every verdict. It may also decide which samples are seen next.

Evidence over a long good time hides a late rise of the misses, so a limit is tested twice: on all verdicts, and on
those since a restart. A restart depends on the number of audits alone, so the evidence after it is a bet of its own.
"""

import math
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shared.miss_bound import BETS, CONFIDENCE, LOG_WEIGHTS, Values, first_that, log_sum

THRESHOLDS: Values = 0.25 * 10.0 ** (-np.arange(81) / 20.0)
"""(thresholds,) p-values from 0.25 down to 2.5e-5, each 0.89 times the one before."""
CELLS = len(THRESHOLDS) + 1
WINDOW_MISSES = 500  # that a window may have at the limit: more find a closer threshold, fewer see a rise sooner
_NORMAL, _ANOMALOUS = range(2)
_LARGEST_PART = 0.5
_CURVE = 4.0 * (math.log(2.0) - 0.5)  # log(1 - y) >= -y - _CURVE * y * y for y in [0, 0.5]


def cells_of(p_values: ArrayLike) -> NDArray[np.intp]:
    """Return the cell of each p-value: the place of the first threshold at which its sample stays."""
    return np.asarray(np.searchsorted(-THRESHOLDS, -np.asarray(p_values, np.float64), side="right"), np.intp)


def audit_part(probability: float) -> float:
    """Return the part of an audit's bet, given its probability: 1, or 0.5 where most samples are audited."""
    return 1.0 if probability <= _LARGEST_PART else _LARGEST_PART


def window_audits(limit: float) -> int:
    """Return after how many audits the recent evidence restarts; it is that of the last one to two windows."""
    return math.ceil(WINDOW_MISSES / limit)


def seen_part(probability: float) -> float:
    """Return the part of the bet on a forwarded sample, while audits have this probability."""
    return probability * audit_part(probability)


@dataclass(frozen=True, slots=True)
class MissCounts:
    """Known verdicts of one source and bundle, (..., CELLS, 2) each: by cell, and by normal or anomalous.

    `audits`: verdicts with part 1. `parts` and `squares`: sums of the parts of the others, and of their squares.
    """

    audits: Values = field(default_factory=lambda: np.zeros((CELLS, 2)))
    parts: Values = field(default_factory=lambda: np.zeros((CELLS, 2)))
    squares: Values = field(default_factory=lambda: np.zeros((CELLS, 2)))

    def add(self, cell: int, *, anomalous: bool, part: float, count: float = 1.0) -> None:
        """Add `count` verdicts on samples of one cell and part."""
        place = cell, int(anomalous)
        if part == 1.0:
            self.audits[place] += count
        else:
            self.parts[place] += part * count
            self.squares[place] += part * part * count

    def since(self, earlier: Self) -> Self:
        """Return the counts that were added after `earlier`, an older state of these."""
        return type(self)(self.audits - earlier.audits, self.parts - earlier.parts, self.squares - earlier.squares)

    def take(self, runs: NDArray[np.bool_], other: Self) -> None:
        """Copy the counts of some runs (...) from `other`."""
        self.audits[runs], self.parts[runs] = other.audits[runs], other.parts[runs]
        self.squares[runs] = other.squares[runs]

    def with_normal(self, count: int) -> Self:
        """Return the counts with further normal audits that stay at every threshold."""
        more = self.audits.copy()
        more[..., 0, _NORMAL] += count
        return type(self)(more, self.parts, self.squares)


def log_evidence_at(counts: MissCounts, limit: ArrayLike) -> Values:
    """Return the logarithm of the evidence at each threshold that the miss rate is below `limit`, (..., thresholds).

    `limit`: one for all counts, or (...).
    """
    level = np.asarray(limit, np.float64)[..., None, None]
    audits, parts, squares = (np.cumsum(each, axis=-2)[..., :-1, :] for each in _arrays(counts))
    gain = BETS * level / (1.0 - level)
    terms = LOG_WEIGHTS + audits[..., _NORMAL, None] * np.log1p(gain)
    terms = terms + parts[..., _NORMAL, None] * gain - squares[..., _NORMAL, None] * gain**2 / 2
    terms = terms - parts[..., _ANOMALOUS, None] * BETS - squares[..., _ANOMALOUS, None] * _CURVE * BETS**2
    hits = audits[..., _ANOMALOUS, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = terms + np.where(hits > 0, hits * np.log1p(-BETS), 0.0)
    return log_sum(terms)


def thresholds_that_hold(counts: MissCounts, limit: ArrayLike, confidence: float = CONFIDENCE) -> NDArray[np.intp]:
    """Return how many thresholds from the largest on hold the limit, (...); 0 if not even the largest is known to."""
    holds = log_evidence_at(counts, limit) >= -math.log(1.0 - confidence)
    return np.where(holds.all(axis=-1), len(THRESHOLDS), holds.argmin(axis=-1))


def audits_needed(counts: MissCounts, limit: float, confidence: float = CONFIDENCE) -> int | None:
    """Return how many more audits without an anomalous one show the largest threshold to hold; None for no number."""
    least = -math.log(1.0 - confidence)
    first = MissCounts(*(each[..., :2, :] for each in _arrays(counts)))  # the cells of the largest threshold
    return first_that(lambda more: bool(log_evidence_at(first.with_normal(more), limit)[0] >= least))


def _arrays(counts: MissCounts) -> tuple[Values, Values, Values]:
    return counts.audits, counts.parts, counts.squares
