"""Which samples travel: by calibrated p-value, within a budget that is spent on the lowest of them.

A random share of what looks normal is audited, whatever its p-value, so that what the edge misses can be estimated
without bias: audits are drawn from the budget first, in the order of their random numbers, and leave the spool at
random among the suspicious.
"""

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge.routing.budget import UploadBudget
from edge.settings import RouterSettings
from shared.calibration import MIN_P_VALUE
from shared.samples import Route

SECONDS_A_DAY = 86400.0
ROUTES = (Route.ACCEPT, Route.FORWARD, Route.ALARM, Route.AUDIT)
ACCEPT, FORWARD, ALARM, AUDIT = range(4)  # codes: positions in ROUTES
_RATE_WINDOW_S = 60.0
_MIN_OBSERVED_S = 1.0
# Bytes (n,) that it would cost to send the samples at these places (n,) of the batch, the most worth sending first.
Cost: TypeAlias = Callable[[NDArray[np.intp]], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Routing:
    """Decisions on a batch, all (batch,). `codes`: positions in ROUTES. `travels`: what goes to the spool.
    `held`: what is suspicious and stays all the same, for the budget or the mode; it does not count as normal.
    `priorities`: the order in which what travels leaves the spool, the lowest first: by p-value; audits, of which
    p-values must not decide, at random among the suspicious."""

    codes: NDArray[np.int8]
    travels: NDArray[np.bool_]
    held: NDArray[np.bool_]
    priorities: NDArray[np.float64]


class RateMeter:
    """The rate of a source in samples a second: as configured, or as seen over the last minute or so."""

    def __init__(self, configured_per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._configured_per_s, self._clock = configured_per_s, clock
        self._since_s: float | None = None  # the first samples: a source may have waited hours for its bundle
        self._count, self._rate_per_s = 0.0, 0.0

    def observe(self, count: int) -> float:
        """Count samples that just came; returns the rate, 0 while it is unknown."""
        if self._configured_per_s > 0:
            return self._configured_per_s
        now = self._clock()
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


class Router:
    """Decides for one source."""

    def __init__(self, settings: RouterSettings, source_id: str, rate: RateMeter, budget: UploadBudget) -> None:
        self._settings, self._rate, self._budget = settings, rate, budget
        # Sources must not audit in step; the same configuration must audit the same samples.
        self._random = np.random.default_rng([settings.seed, zlib.crc32(source_id.encode())])

    def alarm_p_value(self, rate_per_s: float) -> float:
        """The p-value at which normal data raises `false_alarms_per_day` alarms; 0 while the rate is unknown."""
        if rate_per_s <= 0:
            return 0.0
        return min(1.0, self._settings.false_alarms_per_day / (rate_per_s * SECONDS_A_DAY))

    def route(self, p_values: NDArray[np.float64], cost: Cost) -> Routing:
        """Decide on a batch of p-values (batch,). `cost` is asked once, for what ought to travel."""
        settings, count = self._settings, len(p_values)
        alarm_p = self.alarm_p_value(self._rate.observe(count))
        suspicious = p_values <= settings.forward_p_value
        alarms = p_values <= alarm_p
        codes = np.where(alarms, ALARM, np.where(suspicious, FORWARD, ACCEPT)).astype(np.int8)
        draws = self._random.random(count)
        nowhere = np.zeros(count, dtype=bool)
        if settings.mode == "edge_only":
            codes[codes == FORWARD] = ACCEPT
            return Routing(codes, nowhere, suspicious & ~alarms, p_values)
        audits = (codes == ACCEPT) & (draws < settings.audit_share)
        codes[audits] = AUDIT
        wanted = np.ones(count, dtype=bool) if settings.mode == "cloud_only" else codes != ACCEPT
        travels = self._within_budget(wanted, np.where(audits, draws - 2.0, p_values), cost)
        stays = wanted & ~travels
        codes[stays & (codes != ALARM)] = ACCEPT
        at_random = draws / max(settings.audit_share, MIN_P_VALUE) * settings.forward_p_value
        return Routing(codes, travels, stays & (suspicious | alarms), np.where(audits, at_random, p_values))

    def _within_budget(self, wanted: NDArray[np.bool_], worth: NDArray[np.float64], cost: Cost) -> NDArray[np.bool_]:
        """What of the wanted is paid for: the lowest p-values, after the audits, whose draws lie below all of these."""
        positions = np.flatnonzero(wanted)
        if not len(positions):
            return wanted
        order = positions[np.argsort(worth[positions], kind="stable")]
        granted = self._budget.grant(cost(order))
        travels = np.zeros(len(wanted), dtype=bool)
        travels[order[:granted]] = True
        return travels
