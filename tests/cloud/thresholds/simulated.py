"""Simulated days of a group: p-values of normal samples, routed as a device routes them."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cloud.thresholds.cells import BINS, ROUTES, Buckets, bins_of, empty_bank, empty_histogram, pack_histogram
from cloud.thresholds.week import DeviceWeek, GroupWeek, SourceWeek, add_histograms
from shared.alarm_level import alarm_p_value
from shared.group_settings import GroupSettings
from shared.samples import Route

DAYS, SINCE_S = 7, 1_000 * 86_400.0
DAY_S = 86_400.0


@dataclass
class Simulated:
    """Samples of one source over DAYS days: times and p-values, (n,), and which of them were sent."""

    rate_per_s: float
    false_alarms_per_day: float = 1.0
    audit_share: float = 0.01
    forward_p_value: float = 0.05
    odd: int = 0
    seed: int = 1
    p_values: NDArray[np.float64] = field(init=False)
    routes: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        count = int(self.rate_per_s * DAYS * DAY_S)
        self.p_values = np.concatenate([random.uniform(size=count - self.odd), 10.0 ** -random.uniform(4, 9, self.odd)])
        random.shuffle(self.p_values)
        level = alarm_p_value(self.false_alarms_per_day, self.rate_per_s)
        audits = random.uniform(size=count) < self.audit_share
        forward, alarm, audit = (ROUTES.index(each) for each in (Route.FORWARD, Route.ALARM, Route.AUDIT))
        self.routes = np.where(
            self.p_values <= level,
            alarm,
            np.where(self.p_values <= self.forward_p_value, forward, np.where(audits, audit, 0)),
        )

    def alarms_per_day(self, false_alarms_per_day: float) -> float:
        """Return the alarms that this setting would have raised."""
        return float((self.p_values <= alarm_p_value(false_alarms_per_day, self.rate_per_s)).sum()) / DAYS

    def week(self, **in_force: float) -> GroupWeek:
        """Return the week as the store knows it."""
        sent = np.flatnonzero(self.routes)
        histogram, bank, buckets = empty_histogram(), empty_bank(), Buckets()
        cells = self.routes[sent] * BINS + bins_of(self.p_values[sent])
        np.add.at(histogram, (cells, 0), 1)
        np.add.at(histogram, (cells, 2), 1000)
        for place in sent.tolist():
            passes = buckets.spend(SINCE_S + place / self.rate_per_s)
            bank[:-1][passes] += (1, 0, 1000)
            bank[-1] += (1, 0, 1000)
        source = SourceWeek(0, "line")
        add_histograms([source], [pack_histogram(histogram)])
        suspicious = int(np.isin(self.routes, (1, 2)).sum())
        device = DeviceWeek("one", len(self.routes), suspicious, DAYS * DAY_S, DAYS * DAY_S, dict(in_force), 1, bank)
        until_s = SINCE_S + DAYS * DAY_S
        return GroupWeek(SINCE_S, until_s, GroupSettings(), [device], [source], [], [], 0, {})
