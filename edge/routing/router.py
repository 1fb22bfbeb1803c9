"""Router: decides by calibrated p-value which samples are sent, within a budget spent on the lowest p-values.

A random share of the samples that look normal is audited, independent of their p-value: that gives an unbiased
estimate of the anomalies that the edge misses. A part of the budget is kept for them, and they are paid first, in the
order of their random numbers; they leave the spool at random among the suspicious samples. Suspicious samples are drawn
with the same probability. The drawn ones are sent first, so that a random part of all samples is known even while the
budget leaves out others.
"""

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.routing.audit_reserve import AuditNeed
from edge.routing.budget import Granted, UploadBudget
from edge.settings import RouterSettings
from shared.alarm_level import alarm_p_value
from shared.calibration import MIN_P_VALUE
from shared.miss_control import CELLS, cells_of
from shared.samples import Route

ROUTES = (Route.ACCEPT, Route.FORWARD, Route.ALARM, Route.AUDIT)
ACCEPT, FORWARD, ALARM, AUDIT = range(4)  # codes: positions in ROUTES
_RATE_WINDOW_S = 60.0
_MIN_OBSERVED_S = 1.0
_COUNTED_SAMPLES = 1e6


@dataclass(frozen=True, slots=True)
class RouteSelection:
    """Routes of a batch before the budget was asked.

    `codes`: (batch,) positions in ROUTES. `suspicious`: (batch,) bool. `candidates`: (candidates,) places of the
    samples to send, the first to be paid first; the first `drawn` of them were drawn at random with `probability`.
    `priorities`: (batch,) order in which samples leave the spool, the lowest first. `copies`: (batch,) bool, suspicious
    near copies that are sent only if they are drawn. `cleared`: (batch,) bool, near copies that count as accepted.
    """

    codes: NDArray[np.int8]
    suspicious: NDArray[np.bool_]
    candidates: NDArray[np.intp]
    priorities: NDArray[np.float64]
    drawn: int = 0
    probability: float = 0.0
    copies: NDArray[np.bool_] | None = None
    cleared: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Routing:
    """Decisions on a batch, all of shape (batch,).

    `codes`: positions in ROUTES. `travels`: the sample goes to the spool. `held`: the sample is suspicious but stays on
    the device because of the budget or the mode; it does not count as normal. `priorities`: order in which samples
    leave the spool, the lowest first: p-values, and for audits random numbers in the range of suspicious p-values.
    `charged_bytes`: the total that the budget was charged. `drawn`: the sample travels because it was drawn at random
    with `probability`. `certain`: the sample travels, and would travel if it had not been drawn. Whether a sample is
    certain MUST NOT depend on its own draw, or its verdict has the wrong weight. `cleared`: the sample is a near copy
    that is accepted at every threshold.
    """

    codes: NDArray[np.int8]
    travels: NDArray[np.bool_]
    held: NDArray[np.bool_]
    priorities: NDArray[np.float64]
    charged_bytes: float = 0.0
    drawn: NDArray[np.bool_] | None = None
    probability: float = 0.0
    certain: NDArray[np.bool_] | None = None
    cleared: NDArray[np.bool_] | None = None


class NearCopyPlaces(Protocol):
    """Near copies in a batch, all (batch,) bool.

    `cleared` count as accepted, unless no samples are audited. `stays` are suspicious, and stay on the device unless
    they are drawn. `in_turn` are suspicious, but raise no alarm.
    """

    @property
    def cleared(self) -> NDArray[np.bool_]:
        """Copies of samples that the service found normal."""
        ...

    @property
    def stays(self) -> NDArray[np.bool_]:
        """Copies of other samples."""
        ...

    @property
    def in_turn(self) -> NDArray[np.bool_]:
        """Copies of samples that the service found normal, which are sent in turn."""
        ...


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

    `settings` may be replaced at any time, except for the mode: they count from the next batch on. `threshold` replaces
    their forward_p_value, None to keep it. `audit_bytes` and `sample_bytes` are the usual sizes of messages, 0 while
    unknown. `p_value_counts` counts the samples of each cell of `shared.miss_control` while there is a `max_miss_rate`.
    """

    def __init__(self, settings: RouterSettings, source_id: str, rate: RateMeter, budget: UploadBudget) -> None:
        self.settings, self._rate, self._budget = settings, rate, budget
        self._source_id = source_id
        self.threshold: float | None = None
        self.audit_bytes, self.sample_bytes, self.audit_share = 0.0, 0.0, settings.audit_share
        self.p_value_counts = np.zeros(CELLS)
        self.alarm_level = AlarmLevel(0.0, 0.0)  # of the batch selected last
        # Without a seed each start has other draws, because repeated ones are no longer random. Sources must not audit
        # in step.
        source = zlib.crc32(source_id.encode())
        self._random = np.random.default_rng(None if settings.seed is None else [settings.seed, source])

    @property
    def forward_p_value(self) -> float:
        """The p-value up to which samples are forwarded now."""
        return self.settings.forward_p_value if self.threshold is None else self.threshold

    def alarm_p_value(self, rate_per_s: float) -> float:
        """Return the p-value at which normal data raises `false_alarms_per_day` alarms; 0 without a rate."""
        return alarm_p_value(self.settings.false_alarms_per_day, rate_per_s)

    def select(self, p_values: NDArray[np.float64], copies: NearCopyPlaces | None = None) -> RouteSelection:
        """Choose the samples of a batch to send, given their p-values (batch,); each batch MUST be selected once.

        Near copies are sent only if they are drawn at random. Copies of normal samples are routed like any samples
        while no samples are audited, because no verdict would correct a wrong one.
        """
        settings, count = self.settings, len(p_values)
        rate_per_s = self._rate.observe(count)
        # An event right after the start must raise an alarm: an upper bound of the rate bounds false ones meanwhile.
        alarm_p = self.alarm_p_value(rate_per_s or self._rate.first_per_s)
        self.alarm_level = AlarmLevel(alarm_p, rate_per_s)
        forward_p_value = self.forward_p_value
        suspicious = p_values <= forward_p_value
        alarms = p_values <= alarm_p
        edge_only = settings.mode == "edge_only"
        probability = 0.0 if edge_only else self._reserve(rate_per_s or self._rate.first_per_s)
        unsure, cleared = (copies.stays, copies.cleared) if copies is not None else (None, None)
        if cleared is not None and probability <= 0:
            cleared = np.zeros(count, dtype=bool)
        elif copies is not None and cleared is not None:
            suspicious, alarms = suspicious & ~cleared, alarms & ~cleared & ~copies.in_turn
        codes = np.where(alarms, ALARM, np.where(suspicious, FORWARD, ACCEPT)).astype(np.int8)
        draws = self._random.random(count)
        if settings.max_miss_rate > 0:
            self._count(p_values)
        if edge_only:
            codes[codes == FORWARD] = ACCEPT
            self.audit_share = 0.0
            return RouteSelection(codes, suspicious & ~alarms, np.zeros(0, np.intp), p_values)
        drawn = draws < probability
        audits = (codes == ACCEPT) & drawn
        codes[audits] = AUDIT
        wanted = np.flatnonzero(codes != ACCEPT if unsure is None else (codes != ACCEPT) & (drawn | ~unsure))
        if settings.mode == "cloud_only":
            wanted = np.arange(count)
        worth = np.where(drawn, draws - 2.0, p_values)  # drawn ones first: their numbers are below all p-values
        candidates = wanted[np.argsort(worth[wanted], kind="stable")]
        at_random = draws / max(probability, MIN_P_VALUE) * forward_p_value
        priorities = np.where(audits, at_random, p_values)
        first = int(np.count_nonzero(drawn))
        return RouteSelection(codes, suspicious | alarms, candidates, priorities, first, probability, unsure, cleared)

    def grant(self, selection: RouteSelection, cost_bytes: NDArray[np.float64]) -> Routing:
        """Spend the budget on the first candidates, whose messages cost `cost_bytes` (candidates,), and decide."""
        codes, candidates, drawn = selection.codes, selection.candidates, selection.drawn
        travels = np.zeros(len(codes), dtype=bool)
        if self.settings.mode == "edge_only":
            return Routing(codes, travels, selection.suspicious, selection.priorities)
        only_drawn = codes == AUDIT
        if selection.copies is not None:
            only_drawn |= selection.copies
        granted = self._budget.grant(cost_bytes, drawn, only_drawn[candidates]) if len(candidates) else Granted(0, 0)
        others = slice(drawn, drawn + granted.others)
        is_drawn = np.zeros(len(codes), dtype=bool)
        is_drawn[candidates[: granted.drawn]] = True
        travels[candidates[: granted.drawn]] = True
        travels[candidates[others]] = True
        stays = np.zeros(len(codes), dtype=bool)
        stays[candidates] = ~travels[candidates]
        if selection.copies is not None:
            stays |= selection.copies & ~travels
        is_carried = granted.carries_all and self.settings.mode == "cascade" and not stays[candidates].any()
        codes[stays & (codes != ALARM)] = ACCEPT
        return Routing(
            codes,
            travels,
            stays & selection.suspicious,
            selection.priorities,
            charged_bytes=float(cost_bytes[: granted.drawn].sum() + cost_bytes[others].sum()),
            drawn=is_drawn,
            probability=selection.probability,
            certain=travels & ~only_drawn if is_carried else np.zeros(len(codes), dtype=bool),
            cleared=selection.cleared,
        )

    def _reserve(self, rate_per_s: float) -> float:
        """Return the probability with which each sample is drawn, as far as the budget carries audits."""
        share = self.settings.audit_share
        if self.settings.mode == "cascade":
            share *= self._budget.reserve(
                self._source_id, AuditNeed(rate_per_s, share, self.audit_bytes, self.sample_bytes)
            )
        self.audit_share = share
        return share

    def _count(self, p_values: NDArray[np.float64]) -> None:
        """Count the samples of each cell; older ones lose weight slowly."""
        self.p_value_counts += np.bincount(cells_of(p_values), minlength=CELLS)
        if self.p_value_counts.sum() > _COUNTED_SAMPLES:
            self.p_value_counts /= 2.0
