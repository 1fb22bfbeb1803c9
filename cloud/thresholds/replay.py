"""Replay of the last days of a group under other settings.

The p-value of an alarm follows from the setting and the rate of the source, with the function that the router uses.
Samples below the level that were sent are counted. Above the coverage of a source, its largest p-value of which every
sample was sent, audits stand for the samples that stayed: each for the accepted samples of its device divided by its
audits (Horvitz and Thompson, "A generalization of sampling without replacement from a finite universe", 1952). An
upload budget is a token bucket that every sent sample passed or not (`cloud.thresholds.cells`).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cloud.thresholds.cells import ASKING, BINS, BINS_PER_DECADE, BUDGETS, BUDGETS_PER_S, COLUMNS, bins_of, cut_of
from cloud.thresholds.figures import Mark
from cloud.thresholds.intervals import interval_of_sum
from cloud.thresholds.week import DEFAULT_FALSE_ALARMS_PER_DAY, GroupWeek
from shared.alarm_level import SECONDS_PER_DAY, alarm_p_values
from shared.group_settings import GroupSettings

LEAST_DAYS = 1.0 / 24.0
MAX_MARKS = 200
NO_LIMIT = BUDGETS  # place of a budget without a limit in a bank


@dataclass(frozen=True, slots=True)
class Setting:
    """Settings of each device: (devices,) false alarms a day, and samples a second, 0 without a limit."""

    false_alarms: NDArray[np.float64]
    samples_per_s: NDArray[np.float64]

    @property
    def budgets(self) -> NDArray[np.intp]:
        """Places of the budgets in a bank, (devices,)."""
        rates, places = np.unique(self.samples_per_s, return_inverse=True)
        return np.array([budget_of(rate) for rate in rates.tolist()], np.intp)[places]


@dataclass(frozen=True, slots=True)
class Alarms:
    """Alarms under several settings, each (settings,): counted ones, and those that audits stand for, over all days.

    `squares` are for the interval; `asking`: extra verdicts that ask for a person. `is_beyond`: some level is above the
    coverage of its source.
    """

    known: NDArray[np.float64]
    estimated: NDArray[np.float64]
    squares: NDArray[np.float64]
    asking: NDArray[np.float64]
    audits: NDArray[np.int64]
    is_beyond: NDArray[np.bool_]


class Replay:
    """One group, ready to be replayed under any settings."""

    def __init__(self, week: GroupWeek) -> None:
        self.week, self.days = week, max(week.days, LEAST_DAYS)
        count = len(week.sources)
        self._rates = week.rates_per_s()
        self._device_of = np.array([source.device for source in week.sources], np.intp)
        self._known = _tails([source.known for source in week.sources])
        self._audits = _tails([source.audits for source in week.sources])
        self._asking = _tails([source.audits_asking for source in week.sources])
        self.coverage = np.array([source.coverage for source in week.sources], np.int64).reshape(count)
        self._weights, self.unaudited_share = self._audit_weights()
        places = {(source.device, source.source_id): place for place, source in enumerate(week.sources)}
        self._item_source = np.array([places.get((item.device, item.source_id), -1) for item in week.items], np.intp)
        self._item_device = np.array([item.device for item in week.items], np.intp)
        self._item_bin = bins_of([item.p_value for item in week.items])
        self._item_is_alarm = np.array([item.is_alarm for item in week.items], bool)
        self._item_can_alarm = np.array([item.can_alarm for item in week.items], bool)
        self._item_scale = week.items_total / len(week.items) if week.items else 0.0
        self._label_source = np.array(
            [places.get((each.device, each.source_id), -1) for each in week.labelled], np.intp
        )
        self._label_bin = bins_of([each.p_value for each in week.labelled])
        self.label_is_real = np.array([each.is_real for each in week.labelled], bool)
        self._banks = np.array([device.bank for device in week.devices], np.int64).reshape(-1, BUDGETS + 1, COLUMNS)

    @property
    def has_rates(self) -> bool:
        """Whether the rate of a source is known."""
        return bool((self._rates > 0).any())

    @property
    def audits(self) -> int:
        """Audits of all sources."""
        return int(self._audits[:, 0].sum())

    def present(self) -> Setting:
        """Return the settings in force."""
        devices = self.week.devices
        alarms = [device.setting("false_alarms_per_day", DEFAULT_FALSE_ALARMS_PER_DAY) for device in devices]
        budgets = [device.setting("max_samples_per_s", 0.0) for device in devices]
        return Setting(np.array(alarms, np.float64), np.array(budgets, np.float64))

    def proposed(self, settings: GroupSettings) -> Setting:
        """Return the settings in force with these in their place, those that are given."""
        setting, count = self.present(), len(self.week.devices)
        if settings.false_alarms_per_day is not None:
            setting = replace(setting, false_alarms=np.full(count, settings.false_alarms_per_day))
        if settings.max_samples_per_s is not None:
            setting = replace(setting, samples_per_s=np.full(count, settings.max_samples_per_s))
        return setting

    def cuts(self, false_alarms: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the first bin of alarms, (settings, sources), of false alarms a day (settings, devices)."""
        wanted = false_alarms[:, self._device_of]
        return cut_of(alarm_p_values(wanted, self._rates))

    def alarms(self, cuts: NDArray[np.int64]) -> Alarms:
        """Return the alarms of all sources at cuts (settings, sources)."""
        rows = np.arange(len(self.coverage))
        beyond = np.minimum(cuts, self.coverage)  # the part above the coverage: from here to the coverage
        audits = self._audits[rows, beyond] - self._audits[rows, self.coverage]
        asking = self._asking[rows, beyond] - self._asking[rows, self.coverage]
        weights = self._weights[self._device_of] if len(rows) else np.zeros(0)
        return Alarms(
            known=self._known[rows, cuts].sum(axis=1).astype(np.float64),
            estimated=(audits * weights).sum(axis=1),
            squares=(audits * weights**2).sum(axis=1),
            asking=(asking * np.maximum(weights - 1.0, 0.0)).sum(axis=1),
            audits=audits.sum(axis=1),
            is_beyond=np.asarray((cuts < self.coverage).any(axis=1), bool),
        )

    def bounds(self, alarms: Alarms) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return lower and upper bounds of the alarms, (settings,) over all days."""
        low, high = interval_of_sum(alarms.estimated, alarms.squares, float(self._weights.max(initial=0.0)))
        beyond = alarms.is_beyond
        return alarms.known + np.where(beyond, low, 0.0), alarms.known + np.where(beyond, high, 0.0)

    def label_alarms(self, cuts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (settings, labelled) whether each labelled sample raises an alarm."""
        return self._reach(self._label_bin, self._label_source, cuts)

    def items(
        self, cuts: NDArray[np.int64], budgets: NDArray[np.intp]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the review items, (settings,) all and those that are alarms.

        `cuts`: (settings, sources); `budgets`: (settings, devices).
        """
        kept = self._kept(budgets, ASKING)[:, self._item_device] * self._item_scale
        by_edge = self._reach(self._item_bin, self._item_source, cuts)
        is_alarm = self._item_is_alarm | (by_edge & self._item_can_alarm)
        return kept.sum(axis=1), (kept * is_alarm).sum(axis=1)

    def sent(self, budgets: NDArray[np.intp], column: int) -> NDArray[np.int64]:
        """Return the sent samples or bytes of all devices, (settings,), under budgets (settings, devices)."""
        rows = np.arange(len(self.week.devices))
        total: NDArray[np.int64] = self._banks[rows, budgets, column].sum(axis=1)
        return total

    def at_risk(self, budgets: NDArray[np.intp]) -> NDArray[np.int64]:
        """Return how many labelled anomalies a budget may have held back, (settings,)."""
        found = np.zeros(len(budgets), np.int64)
        for each in self.week.labelled:
            losses = self.week.losses.get((each.device, each.day))
            if each.is_real and losses is not None:
                found += losses[budgets[:, each.device]]
        return found

    def marks(self) -> list[Mark]:
        """Return the labelled samples with the setting from which on each raises an alarm, at most MAX_MARKS."""
        marks = []
        for each, place, bin_ in zip(self.week.labelled, self._label_source, self._label_bin, strict=True):
            rate_per_s = self._rates[place] if place >= 0 else 0.0
            if rate_per_s > 0:
                setting = 10.0 ** (-float(bin_) / BINS_PER_DECADE) * rate_per_s * SECONDS_PER_DAY
                marks.append(Mark(sample_id=each.sample_id, setting=setting, is_real=each.is_real))
        return marks[:MAX_MARKS]

    def exact_up_to(self) -> float:
        """Return the largest false alarms a day at which no level is above the coverage of its source; 0 if none is."""
        covered = 10.0 ** (-self.coverage / BINS_PER_DECADE) * self._rates * SECONDS_PER_DAY
        known = (self._rates > 0) & (self.coverage < BINS)
        return float(covered[known].min()) if known.any() and known[self._rates > 0].all() else 0.0

    def _reach(self, bins: NDArray[np.int64], sources: NDArray[np.intp], cuts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (settings, samples) whether samples raise an alarm; one of a source without counts does not."""
        if not self.week.sources:
            return np.zeros((len(cuts), len(bins)), bool)
        found: NDArray[np.bool_] = (bins >= cuts[:, sources]) & (sources >= 0)
        return found

    def _kept(self, budgets: NDArray[np.intp], column: int) -> NDArray[np.float64]:
        """Return the share of a column that passes, (settings, devices)."""
        rows = np.arange(len(self.week.devices))
        total = self._banks[rows, NO_LIMIT, column]
        kept: NDArray[np.float64] = np.where(total > 0, self._banks[rows, budgets, column] / np.maximum(total, 1), 1.0)
        return kept

    def _audit_weights(self) -> tuple[NDArray[np.float64], float]:
        """Return the accepted samples that an audit of each device stands for, and the share without an audit."""
        count = len(self.week.devices)
        audits = np.bincount(self._device_of, self._audits[:, 0], count) if len(self._device_of) else np.zeros(count)
        accepted = np.array([max(0, device.screened - device.forwarded) for device in self.week.devices], np.float64)
        weights = np.where(audits > 0, accepted / np.maximum(audits, 1.0), 0.0)
        total = accepted.sum()
        left_out = float(accepted[audits == 0].sum() / total) if total > 0 else 0.0
        # Devices without an audit are as the others.
        return np.maximum(weights, 1.0 * (audits > 0)) / max(1.0 - left_out, 1e-9), left_out


def budget_of(max_samples_per_s: float) -> int:
    """Return the place of a budget in a bank: the largest rate that is not above it; 0 is no limit."""
    if max_samples_per_s <= 0:
        return NO_LIMIT
    place = int(np.searchsorted(BUDGETS_PER_S, max_samples_per_s * (1 + 1e-9), side="right")) - 1
    return NO_LIMIT if place == BUDGETS - 1 and max_samples_per_s > BUDGETS_PER_S[-1] * 2 else max(place, 0)


def _tails(counts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return (sources, BINS + 1) the counts of each bin and those of smaller p-values."""
    stacked = np.array(counts, np.int64).reshape(-1, BINS)
    tails = np.zeros((len(stacked), BINS + 1), np.int64)
    tails[:, :-1] = np.cumsum(stacked[:, ::-1], axis=1)[:, ::-1]
    return tails
