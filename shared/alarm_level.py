"""Level of local alarms: the p-value that the wanted number of false alarms a day gives at the rate of a source.

The router of a device uses it, and so does the service where it replays stored p-values under another setting.
"""

SECONDS_PER_DAY = 86_400.0


def alarm_p_value(false_alarms_per_day: float, rate_per_s: float) -> float:
    """Return the p-value at which normal data raises `false_alarms_per_day` alarms; 0 without a rate.

    p-values of normal data are uniform, so a share of p of its samples has a p-value of at most p. `rate_per_s`:
    samples of the source per second while it runs.
    """
    if rate_per_s <= 0:
        return 0.0
    return min(1.0, false_alarms_per_day / (rate_per_s * SECONDS_PER_DAY))
