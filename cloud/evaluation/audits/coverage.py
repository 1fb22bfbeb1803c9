"""Coverage and tightness of bounds on missed anomalies, at all numbers of audits of simulated deployments."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaln
from scipy.stats import beta

from shared.miss_bound import CONFIDENCE, at_most_share, log_evidence

ERROR = 1.0 - CONFIDENCE
MIN_SHARE, MAX_SHARE = 3e-4, 0.03
LOST_SHARE = 0.005  # audits of the last pattern without a decision; they count as anomalous
PATTERNS = ("constant", "slow change", "bursts", "0.5 % lost")
LOOKS = (300, 1000, 3000, 10_000)
COMPARED_AUDITS, COMPARED_RUNS = 3000, 200
USED, BETA, BETS = "odds mixture (used)", "beta-binomial mixture", "hedged capital"
_BURST, _SLOW = 200, 4000  # audits

Counts = NDArray[np.float64]
Excludes = Callable[[Counts, Counts, Counts], NDArray[np.bool_]]


def coverage(runs: int, audits: int, random: np.random.Generator) -> dict[str, dict[str, float]]:
    """Return the share of deployments whose mean miss rate no bound excludes at any time, by bound and pattern."""
    found: dict[str, dict[str, float]] = {name: {} for name in BOUNDS}
    for pattern in PATTERNS:
        excluded = {name: np.zeros(runs, bool) for name in BOUNDS}
        for run in range(runs):
            shares = _shares(pattern, audits, random)
            draws = random.random(audits)
            hits = draws < shares
            if pattern == PATTERNS[-1]:
                hits |= random.random(audits) < LOST_SHARE
            # The bound falls until the next hit, so it is lowest just before each hit and at the end.
            places = np.append(np.flatnonzero(hits), audits)
            places = places[places > 0]
            seen, means = np.cumsum(hits)[places - 1], (np.cumsum(shares) / np.arange(1, audits + 1))[places - 1]
            for name, excludes in BOUNDS.items():
                excluded[name][run] = excludes(seen.astype(float), places.astype(float), means).any()
        for name in BOUNDS:
            found[name][pattern] = float(1.0 - excluded[name].mean())
    return found


def tightness(random: np.random.Generator) -> dict[str, dict[str, float]]:
    """Return the median ratio of each bound to that of Clopper and Pearson, by bound and number of audits."""
    shares = 10 ** random.uniform(math.log10(MIN_SHARE), math.log10(MAX_SHARE), COMPARED_RUNS)
    hits = random.random((COMPARED_RUNS, max(LOOKS))) < shares[:, None]
    bets = _betting_bounds(hits[:, :COMPARED_AUDITS])
    found: dict[str, dict[str, float]] = {USED: {}, BETA: {}, BETS: {}}
    for look in LOOKS:
        seen = hits[:, :look].sum(axis=1).astype(float)
        one_look = beta.ppf(CONFIDENCE, seen + 1, look - seen)
        found[USED][str(look)] = float(np.median(at_most_share(seen, look) / one_look))
        found[BETA][str(look)] = float(np.median(_beta_bound(seen, look) / one_look))
        if look in bets:
            found[BETS][str(look)] = float(np.median(bets[look] / one_look))
    return found


def _shares(pattern: str, audits: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Return the miss rate at each audit, (audits,)."""
    share = 10 ** random.uniform(math.log10(MIN_SHARE), math.log10(MAX_SHARE))
    at = np.arange(audits)
    if pattern == "slow change":
        return np.asarray(share * (1.0 + np.sin(2 * np.pi * (at / _SLOW + random.random()))), np.float64)
    if pattern == "bursts":
        return np.where(random.random(audits // _BURST + 1)[at // _BURST] < 0.1, min(10 * share, 0.5), 0.1 * share)
    return np.full(audits, share)


def _odds(hits: Counts, count: Counts, share: Counts) -> NDArray[np.bool_]:
    return np.asarray(log_evidence(hits, count, share) >= -math.log(ERROR))


def _beta_evidence(hits: Counts, count: Counts | float, share: Counts) -> Counts:
    """Return the logarithm of the uniform mixture of likelihood ratios (Robbins 1970)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        likelihood = np.where(hits > 0, hits * np.log(share), 0.0) + (count - hits) * np.log1p(-share)
    return np.asarray(betaln(hits + 1, count - hits + 1) - likelihood)


def _beta_mixture(hits: Counts, count: Counts, share: Counts) -> NDArray[np.bool_]:
    return (_beta_evidence(hits, count, share) >= -math.log(ERROR)) & (share * count > hits)


def _one_look(hits: Counts, count: Counts, share: Counts) -> NDArray[np.bool_]:
    """Return where `hits` or fewer have a probability of at most ERROR (Clopper and Pearson 1934)."""
    tail = 1.0 - betainc(hits + 1, np.maximum(count - hits, 1e-9), share)
    return np.asarray((tail <= ERROR) & (count > hits))


def _beta_bound(hits: Counts, count: float) -> Counts:
    low, high = hits / count, np.ones_like(hits)
    for _ in range(50):
        middle = (low + high) / 2
        is_out = _beta_evidence(hits, count, middle) >= -math.log(ERROR)
        low, high = np.where(is_out, low, middle), np.where(is_out, middle, high)
    return high


def _betting_bounds(hits: NDArray[np.bool_]) -> dict[int, Counts]:
    """Return the bounds (runs,) of the betting confidence sequence at some of LOOKS.

    The bets are the predictable plug-in of Waudby-Smith and Ramdas (2024, section 4), on the upper side alone.
    """
    levels = np.geomspace(1e-4, 0.5, 120)
    runs, audits = hits.shape
    wealth, total, squares = np.zeros((runs, len(levels))), np.full(runs, 0.5), np.full(runs, 0.25)
    found = {}
    for at in range(audits):
        mean, variance = total / (at + 1), squares / (at + 1)
        bet = np.sqrt(2 * math.log(1 / ERROR) / (variance * (at + 1) * math.log(at + 2)))
        bets = np.minimum(bet[:, None], 0.5 / (1.0 - levels))
        wealth += np.log1p(bets * (levels - hits[:, at, None]))
        total, squares = total + hits[:, at], squares + (hits[:, at] - mean) ** 2
        if at + 1 in LOOKS:
            is_in = wealth < -math.log(ERROR)
            found[at + 1] = levels[np.minimum(is_in.sum(axis=1), len(levels) - 1)]
    return found


BOUNDS: dict[str, Excludes] = {
    USED: _odds,
    BETA: _beta_mixture,
    "Clopper-Pearson, for one look": _one_look,
}
