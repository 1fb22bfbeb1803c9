"""Interval of a weighted sum of counts, such as one of audits that each stand for many samples.

Source: Fay and Feuer, "Confidence intervals for directly standardized rates: a method based on the gamma distribution"
(1997), equations 3 and 4.
"""

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95


def interval_of_sum(
    totals: NDArray[np.float64],
    squares: NDArray[np.float64],
    largest_weight: float,
    confidence: float = CONFIDENCE,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return lower and upper bounds of sums of Poisson counts, each (n,).

    `totals`: (n,) sums of count times weight; `squares`: (n,) sums of count times weight squared; `largest_weight`: of
    any count, also of one that is 0. A sum of 0 has the lower bound 0.
    """
    from scipy.special import gammaincinv  # comes with scikit-learn; a tenth of a second to import

    tail = (1.0 - confidence) / 2.0
    low = np.zeros(len(totals))
    some = totals > 0
    scale = squares[some] / totals[some]
    low[some] = scale * gammaincinv(totals[some] / scale, tail)
    top, spread = totals + largest_weight, squares + largest_weight**2
    high = np.where(
        top > 0, spread / np.maximum(top, 1e-300) * gammaincinv(top**2 / np.maximum(spread, 1e-300), 1 - tail), 0.0
    )
    return low, high
