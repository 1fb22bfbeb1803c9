"""Upper bound of the share of missed anomalies among the samples that stayed on a device, from its audits.

Audits are a random share of the accepted samples, so the anomalous ones among them are binomial. The bound is exact
(Clopper and Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial"), for one
look at the counts; `cloud.rollouts.bounds` has bounds that hold at every look.
"""

import math

CONFIDENCE = 0.95
_STEPS, _TERMS = 60, 400


def largest_share(hits: int, count: int, confidence: float = CONFIDENCE) -> float:
    """Return the largest share that `hits` of `count` independent samples do not exclude; 1 without a sample."""
    if count <= 0 or hits >= count:
        return 1.0
    if hits <= 0:
        return 1.0 - math.pow(1.0 - confidence, 1.0 / count)
    low, high = hits / count, 1.0
    for _ in range(
        _STEPS
    ):  # with this share, `hits` or fewer have the probability 1 - I(share; hits + 1, count - hits)
        middle = (low + high) / 2
        if _beta(middle, hits + 1.0, float(count - hits)) < confidence:
            low = middle
        else:
            high = middle
    return high


def _beta(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b) by its continued fraction (Lentz's method)."""
    if x <= 0.0 or x >= 1.0:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1.0) / (a + b + 2.0):  # where the fraction converges slowly, by symmetry
        return 1.0 - _beta(1.0 - x, b, a)
    front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    tiny, c = 1e-300, 1.0
    d = 1.0 / (1.0 - (a + b) * x / (a + 1.0) or tiny)
    value = d
    for m in range(1, _TERMS):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / (1.0 + numerator * d or tiny)
            c = 1.0 + numerator / c or tiny
            value *= d * c
        if abs(d * c - 1.0) < 1e-12:
            break
    return math.exp(front) * value / a
