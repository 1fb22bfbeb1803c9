"""Confidence bounds of a share that hold at every look, however often it is taken."""

import math
from collections.abc import Callable

MOST_SAMPLES = 1e8


def share_bounds(hits: float, count: float, error: float) -> tuple[float, float]:
    """Return the bounds of a share of which `hits` of `count` independent samples were seen.

    With probability 1 - `error` both bounds hold at all times together, however often they are computed while samples
    arrive (Robbins 1970, "Statistical methods related to the law of the iterated logarithm"; here the uniform mixture
    of binomial likelihood ratios, and Ville's inequality).
    """
    if count <= 0:
        return 0.0, 1.0
    hits = min(max(hits, 0.0), count)
    misses, best = count - hits, hits / count
    mixture = math.lgamma(hits + 1) + math.lgamma(misses + 1) - math.lgamma(count + 2)
    limit = mixture + math.log(error)  # a share is excluded while its likelihood is below this

    def excluded(share: float) -> bool:
        return _times_log(hits, share) + _times_log(misses, 1 - share) < limit

    low = 0.0 if not excluded(0.0) else crossing(0.0, best, excluded)
    high = 1.0 if not excluded(1.0) else crossing(1.0, best, excluded)
    return low, high


def count_until_below(hits: float, count: float, limit: float, error: float) -> float | None:
    """Return how many samples of the same share put its upper bound at or below `limit`; `count` if it is now.

    None if the share itself is not below the limit, or if it takes more than MOST_SAMPLES.
    """
    if count <= 0:
        return None
    share = hits / count

    def is_enough(samples: float) -> bool:
        return share_bounds(share * samples, samples, error)[1] <= limit

    if is_enough(count):
        return count
    if share >= limit:
        return None
    low = high = count
    while not is_enough(high):
        low, high = high, 2 * high
        if high > MOST_SAMPLES:
            return None
    while high - low > max(1.0, 0.01 * high):
        middle = (low + high) / 2
        if is_enough(middle):
            high = middle
        else:
            low = middle
    return math.ceil(high)


def crossing(outside: float, inside: float, excluded: Callable[[float], bool]) -> float:
    """Return the outermost share that is not excluded, by bisection."""
    for _ in range(60):
        middle = (outside + inside) / 2
        if excluded(middle):
            outside = middle
        else:
            inside = middle
    return inside


def _times_log(count: float, share: float) -> float:
    """Return count * log(share), 0 for a count of 0."""
    if count == 0:
        return 0.0
    return count * math.log(share) if share > 0 else -math.inf
