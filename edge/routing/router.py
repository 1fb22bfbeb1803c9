"""Router: decides by calibrated p-value which samples are sent, within a budget spent on the lowest p-values.

A random share of the samples that look normal is audited, independent of their p-value: that gives an unbiased
estimate of the anomalies that the edge misses. Audits are paid from the budget first, in the order of their random
numbers, and leave the spool at random among the suspicious samples.
"""

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.routing.budget import UploadBudget
from edge.settings import RouterSettings
from shared.alarm_level import alarm_p_value
from shared.calibration import MIN_P_VALUE
from shared.samples import Route

ROUTES = (Route.ACCEPT, Route.FORWARD, Route.ALARM, Route.AUDIT)
ACCEPT, FORWARD, ALARM, AUDIT = range(4)  # codes: positions in ROUTES
_RATE_WINDOW_S = 60.0
_MIN_OBSERVED_S = 1.0


@dataclass(frozen=True, slots=True)
class RouteSelection:
    """Routes of a batch before the budget was asked.

    `codes`: (batch,) positions in ROUTES. `suspicious`: (batch,) bool. `candidates`: (candidates,) places of the
    samples to send, the first to be paid first. `priorities`: (batch,) order in which samples leave the spool, the
    lowest first.
    """

    codes: NDArray[np.int8]
    suspicious: NDArray[np.bool_]
    candidates: NDArray[np.intp]
    priorities: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Routing:
    """Decisions on a batch, all of shape (batch,).

    `codes`: positions in ROUTES. `travels`: the sample goes to the spool. `held`: the sample is suspicious but stays on
    the device because of the budget or the mode; it does not count as normal. `priorities`: order in which samples
    leave the spool, the lowest first: p-values, and for audits random numbers in the range of suspicious p-values.
    `charged_bytes`: the total that the budget was charged.
    """

    codes: NDArray[np.int8]
    travels: NDArray[np.bool_]
    held: NDArray[np.bool_]
    priorities: NDArray[np.float64]
    charged_bytes: float = 0.0


class RateMeter:
    """Rate of a source in samples per second: the configured one, or the average of the last minute."""

    def __init__(self, configured_per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._configured_per_s, self._clock = configured_per_s, clock
        self._since_s: float | None = None  # of the first samples: a source may wait hours for its bundle
        self._count, self._rate_per_s = 0.0, 0.0
        self.first_per_s = 0.0  # upper bound of the rate while it is unknown: all samples so far, as if in one second

    def observe(self, count: int) -> float:
        """Count new samples and return the rate, 0 while it is unknown."""
        if self._configured_per_s > 0:
            return self._configured_per_s
        now = self._clock()
        if self._rate_per_s == 0:
            self.first_per_s += count / _MIN_OBSERVED_S
        if self._since_s is None:
            self._since_s = now
            return 0.0
        self._count += count
        elapsed_s = now - self._since_s
        if elapsed_s >= _MIN_OBSERVED_S:
            self._rate_per_s = self._count / elapsed_s
        if elapsed_s > _RATE_WINDOW_S:  # forget the older half
            self._since_s, self._count = now - elapsed_s / 2, self._count / 2
        return self._rate_per_s


class AlarmLevel(NamedTuple):
    """p-value of alarms, which is their expected share of normal data, and samples per second of the source."""

    p_value: float
    rate_per_s: float


class Router:
    """Routes the samples of one source, in two steps: `select`, then `grant` once the prices are known.

    `settings` may be replaced at any time, except for the mode: they count from the next batch on.
    """

    def __init__(self, settings: RouterSettings, source_id: str, rate: RateMeter, budget: UploadBudget) -> None:
        self.settings, self._rate, self._budget = settings, rate, budget
        self.alarm_level = AlarmLevel(0.0, 0.0)  # of the batch selected last
        # Sources must not audit in step; the same configuration must audit the same samples.
        self._random = np.random.default_rng([settings.seed, zlib.crc32(source_id.encode())])

    def alarm_p_value(self, rate_per_s: float) -> float:
        """Return the p-value at which normal data raises `false_alarms_per_day` alarms; 0 without a rate."""
        return alarm_p_value(self.settings.false_alarms_per_day, rate_per_s)

    def select(self, p_values: NDArray[np.float64]) -> RouteSelection:
        """Choose the samples of a batch to send, given their p-values (batch,); each batch MUST be selected once."""
        settings, count = self.settings, len(p_values)
        rate_per_s = self._rate.observe(count)
        # An event right after the start must raise an alarm: an upper bound of the rate bounds false ones meanwhile.
        alarm_p = self.alarm_p_value(rate_per_s or self._rate.first_per_s)
        self.alarm_level = AlarmLevel(alarm_p, rate_per_s)
        suspicious = p_values <= settings.forward_p_value
        alarms = p_values <= alarm_p
        codes = np.where(alarms, ALARM, np.where(suspicious, FORWARD, ACCEPT)).astype(np.int8)
        draws = self._random.random(count)
        if settings.mode == "edge_only":
            codes[codes == FORWARD] = ACCEPT
            return RouteSelection(codes, suspicious & ~alarms, np.zeros(0, np.intp), p_values)
        audits = (codes == ACCEPT) & (draws < settings.audit_share)
        codes[audits] = AUDIT
        wanted = np.arange(count) if settings.mode == "cloud_only" else np.flatnonzero(codes != ACCEPT)
        worth = np.where(audits, draws - 2.0, p_values)  # audits first: their numbers are below all p-values
        candidates = wanted[np.argsort(worth[wanted], kind="stable")]
        at_random = draws / max(settings.audit_share, MIN_P_VALUE) * settings.forward_p_value
        return RouteSelection(codes, suspicious | alarms, candidates, np.where(audits, at_random, p_values))

    def grant(self, selection: RouteSelection, cost_bytes: NDArray[np.float64]) -> Routing:
        """Spend the budget on the first candidates, whose messages cost `cost_bytes` (candidates,), and decide."""
        codes, candidates = selection.codes, selection.candidates
        travels = np.zeros(len(codes), dtype=bool)
        if self.settings.mode == "edge_only":
            return Routing(codes, travels, selection.suspicious, selection.priorities)
        granted = self._budget.grant(cost_bytes) if len(candidates) else 0
        travels[candidates[:granted]] = True
        stays = np.zeros(len(codes), dtype=bool)
        stays[candidates[granted:]] = True
        codes[stays & (codes != ALARM)] = ACCEPT
        charged_bytes = float(cost_bytes[:granted].sum())
        return Routing(codes, travels, stays & selection.suspicious, selection.priorities, charged_bytes)
