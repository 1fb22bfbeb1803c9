"""Level of local alarms: the p-value that the wanted number of false alarms a day gives at the rate of a source.

The router of a device uses it, and so does the service where it replays stored p-values under another setting.
"""

import numpy as np
from numpy.typing import NDArray

SECONDS_PER_DAY = 86_400.0


def alarm_p_value(false_alarms_per_day: float, rate_per_s: float) -> float:
    """Return the p-value at which normal data raises `false_alarms_per_day` alarms; 0 without a rate.

    p-values of normal data are uniform, so a share of p of its samples has a p-value of at most p. `rate_per_s`:
    samples of the source per second while it runs.
    """
    if rate_per_s <= 0:
        return 0.0
    return min(1.0, false_alarms_per_day / (rate_per_s * SECONDS_PER_DAY))


def alarm_p_values(false_alarms_per_day: NDArray[np.float64], rates_per_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `alarm_p_value` of each pair; the arrays are broadcast."""
    wanted, per_day = np.broadcast_arrays(false_alarms_per_day, rates_per_s * SECONDS_PER_DAY)
    levels: NDArray[np.float64] = np.divide(wanted, per_day, out=np.zeros(wanted.shape), where=per_day > 0)
    return np.minimum(levels, 1.0, out=levels)
