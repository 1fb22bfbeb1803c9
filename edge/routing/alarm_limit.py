"""Comparison of the alarm threshold with the resolution of the running artefact's calibration.

n held-out normal samples resolve a p-value of 1 / (n + 1). A smaller threshold rests on the fitted tail, an
extrapolation: far beyond the resolution its scores may lie beyond those of any defect. Without a tail no score reaches
a smaller threshold.
"""

import math
from dataclasses import dataclass

from edge.screener import CalibrationResolution
from shared.alarm_level import SECONDS_PER_DAY

MAX_EXTRAPOLATION = 30.0  # a fitted tail is relied on for p-values down to this fraction of the resolution
ROUNDING = 1e-9  # relative, so that a rate equal to 1 / (n + 1) counts as resolved


@dataclass(frozen=True, slots=True)
class AlarmLimit:
    """Limit of one source: `false_alarms_per_day` at `rate_per_s`, 0 while unknown. `unit`: several samples."""

    false_alarms_per_day: float
    rate_per_s: float
    unit: str

    def is_resolved(self, resolution: CalibrationResolution) -> bool:
        """Return whether the calibration resolves the alarm threshold or nearly does, or no alarms are wanted."""
        wanted, per_day = self.false_alarms_per_day, self._samples_per_day(resolution)
        reach = MAX_EXTRAPOLATION if resolution.has_tail else 1.0
        return wanted == 0 or wanted * reach * (resolution.held_out + 1) >= per_day * (1 - ROUNDING)

    def warning(self, resolution: CalibrationResolution) -> str:
        """Return one sentence with the figures and the next steps; empty if the threshold is resolved."""
        if self.is_resolved(resolution):
            return ""
        per_day, held_out = self._samples_per_day(resolution), resolution.held_out
        one_in = per_day / self.false_alarms_per_day
        of_mode = " of the operating mode with the fewest" if resolution.by_mode else ""
        origin = "assumed in training" if resolution.is_assumed else "the rate of training"
        assumed = "" if self.rate_per_s > 0 else f" ({origin}; not measured here yet)"
        result = "even a clear defect may raise no alarm" if resolution.has_tail else "no defect can raise an alarm"
        return (
            f"{held_out:,} held-out {self.unit}{of_mode} resolve 1 in {held_out + 1:,}, but "
            f"{_alarms(self.false_alarms_per_day)} a day at {_pace(per_day, self.unit)}{assumed} is 1 in "
            f"{_rounded(one_in)}, so {result}: train with more normal {self.unit} (about "
            f"{_rounded(one_in - 1)} held out), or raise router.false_alarms_per_day and accept "
            f"{_at_least(per_day / (held_out + 1))} a day"
        )

    def _samples_per_day(self, resolution: CalibrationResolution) -> float:
        """Return the samples in a day: at the source's rate, or else that of training; 0 while neither is known."""
        return self.rate_per_s * SECONDS_PER_DAY if self.rate_per_s > 0 else resolution.assumed_per_day


def _alarms(count: float) -> str:
    return f"{count:,.4g} false alarm{'' if count == 1 else 's'}"


def _rounded(number: float) -> str:
    """Return a number with three significant digits: a measured rate is not more exact."""
    digits = max(0, math.floor(math.log10(max(number, 1.0))) - 2)
    return f"{round(number, -digits):,.0f}"


def _at_least(number: float) -> str:
    """Return the number rounded up to two significant digits, so that it is resolved as a setting."""
    step = 10.0 ** (math.floor(math.log10(number)) - 1)
    return f"{math.ceil(number / step * (1 - ROUNDING)) * step:.6g}"


def _pace(per_day: float, unit: str) -> str:
    """Return a rate by the second, minute or day, whichever gives at least one sample."""
    for seconds, name in ((1, "second"), (60, "minute")):
        each = per_day * seconds / SECONDS_PER_DAY
        if each >= 1 - ROUNDING:
            number = f"{each:.2g}" if each < 99.5 else _rounded(each)
            return f"{number} {unit.removesuffix('s') if number == '1' else unit} a {name}"
    return f"{_rounded(per_day)} {unit} a day"
