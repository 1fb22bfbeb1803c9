"""Last days of a group for a replay: histograms, counters, labelled samples and review items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cloud.thresholds.cells import ASKING, BINS, ROUTES, SAMPLES, Bank, cells_in, empty_bank, unpack_cells
from shared.group_settings import GroupSettings
from shared.samples import Route

DEFAULT_FALSE_ALARMS_PER_DAY = 1.0  # of an agent without settings
MAX_DEVICES, MAX_SOURCES = 1000, 4000  # of a forecast; a source takes 15 kB of memory
MIN_AUDITS_TO_SPLIT = 30  # for each source, before audits divide the rate of a device among its sources


@dataclass(slots=True)
class SourceWeek:
    """Sent samples of one source: (BINS,) counts by bin of the p-value.

    `known`: sent as suspicious, so that all samples of these p-values are there. `audits`: sent at random;
    `audits_asking`: those of them whose verdict asks for a person. `device` is a place in the devices of the group.
    """

    device: int
    source_id: str
    known: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    audits: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    audits_asking: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    @property
    def coverage(self) -> int:
        """First bin of which every sample was sent, by the largest p-value that was; BINS if none was."""
        bins = np.flatnonzero(self.known)
        return int(bins[0]) if len(bins) else BINS


def add_histograms(sources: Sequence[SourceWeek], packed: Sequence[bytes]) -> None:
    """Add packed histograms to their sources in one pass; `packed` holds one or more histograms of each source."""
    routes, bins, counts = unpack_cells(b"".join(packed))
    places = np.repeat(np.arange(len(sources)) * BINS, [cells_in(data) for data in packed]) + bins
    forward, alarm, audit = (ROUTES.index(each) for each in (Route.FORWARD, Route.ALARM, Route.AUDIT))

    def summed(chosen: NDArray[np.bool_], column: int) -> NDArray[np.int64]:
        found = np.bincount(places[chosen], counts[column][chosen], len(sources) * BINS)
        return found.astype(np.int64).reshape(-1, BINS)

    is_known, is_audit = (routes == forward) | (routes == alarm), routes == audit
    known, audits, asking = summed(is_known, SAMPLES), summed(is_audit, SAMPLES), summed(is_audit, ASKING)
    for place, source in enumerate(sources):
        source.known += known[place]
        source.audits += audits[place]
        source.audits_asking += asking[place]


@dataclass(slots=True)
class DeviceWeek:
    """Counters of one device over the days, and its budgets.

    `active_s`: time in which it screened samples; `observed_s`: time between its first and last heartbeat of these
    days. `in_force`: settings that it reports, None if unknown. `running`: number of its sources.
    """

    device_id: str
    screened: int = 0
    forwarded: int = 0
    active_s: float = 0.0
    observed_s: float = 0.0
    in_force: Mapping[str, float | None] | None = None
    running: int = 0
    bank: Bank = field(default_factory=empty_bank)

    @property
    def rate_per_s(self) -> float:
        """Samples a second while it screens, 0 while unknown."""
        return self.screened / self.active_s if self.active_s > 0 else 0.0

    def setting(self, name: str, default: float) -> float:
        """Return a setting in force, or the default of an agent."""
        value = (self.in_force or {}).get(name)
        return default if value is None else float(value)


@dataclass(frozen=True, slots=True)
class LabelledSample:
    """Sample that a person has labelled; `is_real`: an anomaly, else a false alarm."""

    sample_id: str
    device: int
    source_id: str
    p_value: float
    is_real: bool
    day: int


@dataclass(frozen=True, slots=True)
class ItemOfWeek:
    """Review item by its oddest sample. `p_value`: the edge's; `is_alarm`: an alarm even if the device raises none.

    `can_alarm`: it is an alarm if the device raises one; an undecided one is not.
    """

    device: int
    source_id: str
    p_value: float
    is_alarm: bool
    can_alarm: bool


@dataclass(slots=True)
class GroupWeek:
    """A group over its last days, up to `until_s`.

    `items` are the newest of `items_total` review items. `losses`: by device and day, (budgets,) whether a budget would
    have held a sample back on that day. `left_out`: devices that were not read, because of the bounds of devices and
    sources.
    """

    since_s: float
    until_s: float
    wanted: GroupSettings
    devices: list[DeviceWeek]
    sources: list[SourceWeek]
    labelled: list[LabelledSample]
    items: list[ItemOfWeek]
    items_total: int
    losses: Mapping[tuple[int, int], NDArray[np.bool_]]
    left_out: int = 0

    @property
    def days(self) -> float:
        """Days that the figures cover."""
        observed_s = max((device.observed_s for device in self.devices), default=0.0)
        return min(observed_s, self.until_s - self.since_s) / 86_400.0

    def rates_per_s(self) -> NDArray[np.float64]:
        """Return the rate of each source, (sources,) samples a second.

        Heartbeats count the samples of a device, not of its sources. Audits are a random share of each source's
        samples, so they divide the rate; with few audits the sources get equal parts.
        """
        if not self.sources:
            return np.zeros(0)
        devices, count = np.array([source.device for source in self.sources], np.intp), len(self.devices)
        audits = np.array([source.audits for source in self.sources]).sum(axis=1).astype(np.float64)
        total, counted = np.bincount(devices, audits, count), np.bincount(devices, minlength=count)
        parts = np.maximum(np.maximum(counted, [device.running for device in self.devices]), 1)
        is_split = (total >= MIN_AUDITS_TO_SPLIT * parts) & (parts == counted)
        shares = np.where(is_split[devices], audits / np.maximum(total[devices], 1.0), 1.0 / parts[devices])
        rates: NDArray[np.float64] = np.array([device.rate_per_s for device in self.devices])[devices] * shares
        return rates
