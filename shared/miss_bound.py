"""Anytime-valid upper bound of the share of anomalies among the samples that stayed on a device, from its audits.

Audits are a random share of the accepted samples with a known probability, so each is anomalous with the mean
probability of the samples that stayed at its time. The bound holds at all numbers of audits together, however often it
is read, and also while that probability changes: it then bounds the mean over the audits so far.

For a bet `b` in (0, 1] and hits Y_i with the conditional means m_i, the product of (1 - b)^Y_i / (1 - b m_i) is a
martingale with mean 1. The logarithm is concave, so (1 - b)^hits / (1 - b m)^count with the mean m of all m_i is never
larger. The same holds for a mixture of bets, and Ville's inequality bounds its maximum (Waudby-Smith and Ramdas 2024,
"Estimating means of bounded random variables by betting"; mixtures: Robbins 1970). `vedette bench audit` compares it
with other bounds.
"""

import functools
import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
MOST_AUDITS = 10**9
BETS: NDArray[np.float64] = np.concatenate([[1.0], 0.9 * 0.7 ** np.arange(14)])
"""(bets,) the first loses everything at the first hit; the others suit about 1 to 100,000 hits."""
_FIRST_WEIGHT = 0.35  # audits without a hit are the usual case
_OTHERS = 1.0 / (np.arange(len(BETS) - 1) + 3.0)
LOG_WEIGHTS: NDArray[np.float64] = np.log(
    np.concatenate([[_FIRST_WEIGHT], (1.0 - _FIRST_WEIGHT) * _OTHERS / _OTHERS.sum()])
)
"""(bets,) logarithms of the weights in the mixture, which sum to 1."""
_STEPS = 50

Values: TypeAlias = NDArray[np.float64]


def log_evidence(hits: ArrayLike, count: ArrayLike, share: ArrayLike) -> Values:
    """Return the logarithm of the evidence that the mean share of hits is below `share`.

    Args:
        hits: Hits so far, (...).
        count: Audits so far, (...).
        share: Share in [0, 1], (...).

    Returns:
        (...) values. If the mean share is `share` or more, the evidence ever reaches 1 / error with a probability of at
        most `error`.
    """
    return log_sum(_terms(*_columns(hits, count, share)))


def at_most_share(hits: ArrayLike, count: ArrayLike, confidence: float = CONFIDENCE) -> Values:
    """Return the largest mean share that `hits` of `count` audits do not exclude, (...); 1 without an audit."""
    limit = -math.log(1.0 - confidence)
    seen, total, _ = _columns(hits, count, 0.0)
    # Each bet alone has a bound in closed form, and that of the mixture is not above the least of them. From there
    # Newton's steps approach it from above, because the logarithm of the evidence is convex in the share.
    start = -np.expm1(-(limit - LOG_WEIGHTS - _lost(seen)) / np.maximum(total, 1.0)) / BETS
    share = np.where(total > 0, np.minimum(start.min(axis=-1, keepdims=True), 1.0), 1.0)
    for _ in range(_STEPS):
        terms = _terms(seen, total, share)
        found = log_sum(terms)[..., None]
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = (np.exp(terms - found) * np.nan_to_num(total * BETS / (1.0 - BETS * share), posinf=0.0)).sum(-1)
            step = (found - limit) / slope[..., None]
        step = np.where(np.isfinite(step) & (total > 0), np.maximum(step, 0.0), 0.0)
        share = share - step
        if not (step > 1e-12 * share).any():
            break
    bound: Values = np.clip(share[..., 0], 0.0, 1.0)
    return bound


@functools.lru_cache(maxsize=65_536)
def bound_of(hits: int, count: int) -> float:
    """Return `at_most_share` of one pair of counts."""
    return float(at_most_share(hits, count))


def _columns(hits: ArrayLike, count: ArrayLike, share: ArrayLike) -> tuple[Values, Values, Values]:
    """Return the values with a last axis for the bets."""
    seen, total, level = np.broadcast_arrays(*(np.asarray(each, np.float64) for each in (hits, count, share)))
    return seen[..., None], total[..., None], level[..., None]


def _lost(seen: Values) -> Values:
    """Return the logarithms of the loss of each bet by the hits, (..., bets)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(seen > 0, seen * np.log1p(-BETS), 0.0)


def _terms(seen: Values, total: Values, share: Values) -> Values:
    """Return the logarithms of the weighted bets, (..., bets)."""
    lost = _lost(seen)
    with np.errstate(divide="ignore", invalid="ignore"):
        won = np.where(total > 0, -total * np.log1p(-BETS * share), 0.0)
        return np.where(np.isneginf(lost), -np.inf, lost + won) + LOG_WEIGHTS


def log_sum(values: Values) -> Values:
    """Return the logarithm of the sum of exp(values) over the last axis."""
    top = values.max(axis=-1, keepdims=True)
    safe = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        summed: Values = np.log(np.exp(values - safe).sum(axis=-1)) + safe[..., 0]
    return np.where(np.isposinf(top[..., 0]), np.inf, summed)


def first_that(is_enough: Callable[[int], bool]) -> int | None:
    """Return the least number in [0, MOST_AUDITS] that is enough, where all larger ones are; None if there is none."""
    if is_enough(0):
        return 0
    low, high = 0, 1
    while not is_enough(high):
        low, high = high, 2 * high
        if high > MOST_AUDITS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
