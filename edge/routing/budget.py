"""Upload budget in samples and bytes per second, adapted to the measured throughput of the link."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.routing.audit_reserve import AUDIT_PART, BORROWED_AUDITS, AuditNeed, carried_share, halvings, kept_tokens
from edge.settings import RouterSettings
from edge.token_bucket import TokenBucket

LINK_SHARE = 0.8  # of the measured throughput that new samples may use while the queue is too long


@dataclass(frozen=True, slots=True)
class UplinkLoad:
    """Load of the queue and of the link: `bytes` that wait, and `spool_share`, their share of the spool's bound.

    `throughput_bytes_per_s` and `round_trip_s` are 0 while unknown.
    """

    bytes: int
    spool_share: float
    connected: bool
    throughput_bytes_per_s: float
    round_trip_s: float

    @property
    def wait_s(self) -> float:
        """Seconds until a sample added now would be sent; 0 while unknown."""
        if self.throughput_bytes_per_s <= 0:
            return 0.0
        return self.bytes / self.throughput_bytes_per_s + self.round_trip_s


class Granted(NamedTuple):
    """Numbers of the first drawn samples, and of the first other ones, that were paid for.

    `carries_all`: the budget carries the audits and all suspicious samples, also if none of these had been drawn.
    """

    drawn: int
    others: int
    carries_all: bool = True


class UploadBudget:
    """The device's budget in samples and in bytes, shared by all its sources. Safe to use from any thread.

    While the queue would take a connected link longer than `max_queue_s`, the budget in bytes falls to the throughput
    of that link, so that the most suspicious samples arrive in time. Without a connection the budget stays as
    configured, and the spool fills.

    A part of each bucket is kept for audits, which is sized by their expected rate. Where they would need more than
    AUDIT_PART of the budget, `audit_part` of their configured share is in force: 1, 1/2, 1/4 and so on.
    """

    def __init__(self, settings: RouterSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._max_queue_s, self._configured = settings.max_queue_s, settings.max_bytes_per_s
        self._samples = TokenBucket(settings.max_samples_per_s, settings.burst_s, clock)
        self._bytes = TokenBucket(settings.max_bytes_per_s, settings.burst_s, clock)
        self._follows_link = False
        self._burst_s = settings.burst_s
        self._needs: dict[str, AuditNeed] = {}
        self._halvings = 0
        self._audit_bytes = 0.0
        self._kept_samples, self._kept_bytes = 0.0, 0.0
        self._samples_per_s = settings.max_samples_per_s
        self.audit_part = 1.0
        self.bytes_per_s = settings.max_bytes_per_s
        self.pressure = 0.0

    @property
    def counts_bytes(self) -> bool:
        """Whether the budget limits bytes."""
        return self._bytes.is_limited

    @property
    def is_limited(self) -> bool:
        """Whether the budget limits samples or bytes."""
        return self._samples.is_limited or self._bytes.is_limited

    def configure(self, settings: RouterSettings) -> None:
        """Adopt other rates; that in bytes counts from the next call of `follow` on."""
        with self._lock:
            self._samples.change_rate(settings.max_samples_per_s)
            self._samples_per_s = settings.max_samples_per_s
        self._configured = settings.max_bytes_per_s

    def follow(self, load: UplinkLoad) -> None:
        """Adapt to the queue, and set `pressure` to its fill in time or in bytes, 1 when full."""
        wait_s, limit_s = load.wait_s if load.connected else 0.0, self._max_queue_s
        self.pressure = max(load.spool_share, wait_s / limit_s if limit_s > 0 else 0.0)
        slow = limit_s > 0 and wait_s > (limit_s / 2 if self._follows_link else limit_s)
        carried = LINK_SHARE * load.throughput_bytes_per_s
        wanted = min(carried, self._configured or carried) if slow else self._configured
        self._follows_link = slow
        if wanted != self.bytes_per_s:
            with self._lock:  # both together: `reserve` divides by the rate while the bucket is limited
                self._bytes.change_rate(wanted)
                self.bytes_per_s = wanted

    def affords(self, cost_bytes: float, share: float) -> bool:
        """Return whether less than `share` of queue and bucket is used up and `cost_bytes` fit into the bucket."""
        with self._lock:
            level, capacity = self._bytes.level() - self._kept_bytes, self._bytes.capacity - self._kept_bytes
        fits = cost_bytes <= level and level >= (1.0 - share) * capacity  # always without a limit
        return self.pressure <= share and fits

    def available_bytes(self) -> float:
        """Return the bytes in the bucket beside those kept for audits, infinity without a limit; below 0 in debt."""
        with self._lock:
            return self._bytes.level() - self._kept_bytes

    def reserve(self, source_id: str, need: AuditNeed) -> float:
        """Keep a part of the budget for the audits of a source; return the part of its share that is in force."""
        with self._lock:
            self._needs[source_id] = need
            self._size_reserve()
            return self.audit_part

    def release(self, source_id: str) -> None:
        """Give back what is kept for the audits of a source that has ended."""
        with self._lock:
            if self._needs.pop(source_id, None) is not None:
                self._size_reserve()

    def shortage(self) -> str:
        """Return why fewer samples are audited than configured, in a sentence; empty if the budget carries them."""
        with self._lock:
            part, needs = self.audit_part, list(self._needs.values())
            if part == 1.0 or not needs:
                return ""
            samples, audit_bytes = _audits_per_s(needs)
            share = max(need.share for need in needs)
            raised = []
            if self._samples.is_limited and samples > AUDIT_PART * self._samples_per_s:
                raised.append(f"max_samples_per_s to {samples / AUDIT_PART:.3g}")
            if self._bytes.is_limited and audit_bytes > AUDIT_PART * self.bytes_per_s:
                slow = " (or a faster link)" if self._follows_link else ""
                raised.append(f"max_bytes_per_s to {audit_bytes / AUDIT_PART:.3g}{slow}")
        ways = " and ".join(raised)
        return (
            f"the budget carries audits of {part * share:.3g} of the accepted samples, not of {share:.3g}: "
            f"{f'raise {ways}, or ' if ways else ''}lower audit_share"
        )

    def carried_share(self) -> float:
        """Return the share of all samples that the budget can forward beside the audits, in [0, 1]."""
        with self._lock:
            return carried_share(self._needs.values(), self.audit_part, self._samples_per_s, self.bytes_per_s)

    def grant(
        self, sizes_bytes: NDArray[np.float64], drawn: int = 0, is_audit: NDArray[np.bool_] | None = None
    ) -> Granted:
        """Pay for as many of the first samples as fit, and return their numbers.

        `sizes_bytes` (n,) are in the order in which samples are paid for; the first `drawn` of them may use the part
        that is kept for audits. `is_audit`: (n,) bool, the sample is sent only because it was drawn.

        A sample larger than the whole bucket passes when the bucket is full; the debt is paid back before the next one.
        """
        with self._lock:
            carries_all = is_audit is None or self._carries_all(sizes_bytes, is_audit)
            borrowed = self._borrowed()
            first = self._pay(sizes_bytes[:drawn], borrowed, (0.0, 0.0))
            kept = self._kept_samples - first, self._kept_bytes - float(sizes_bytes[:first].sum())
            others = self._pay(sizes_bytes[drawn:], (0.0, 0.0), kept)
        return Granted(first, others, carries_all)

    def _carries_all(self, sizes_bytes: NDArray[np.float64], is_audit: NDArray[np.bool_]) -> bool:
        """Return whether the budget pays for all samples, with no audit drawn beyond `is_audit`."""
        audits, audit_bytes = int(np.count_nonzero(is_audit)), float(sizes_bytes[is_audit].sum())
        kept_samples, kept_bytes = max(self._kept_samples - audits, 0.0), max(self._kept_bytes - audit_bytes, 0.0)
        fits = self._samples.level() - kept_samples >= len(sizes_bytes)
        if not self._bytes.is_limited:
            return fits
        others = np.minimum(sizes_bytes[~is_audit], self._bytes.capacity - kept_bytes)
        return fits and self._bytes.level() - kept_bytes - audit_bytes >= float(others.sum())

    def _pay(self, sizes_bytes: NDArray[np.float64], more: tuple[float, float], kept: tuple[float, float]) -> int:
        """Pay for the first samples that fit, and return their number.

        `more` and `kept`: samples and bytes to borrow, and to leave in the buckets.
        """
        kept_samples, kept_bytes = max(kept[0], 0.0), max(kept[1], 0.0)
        by_count = min(self._samples.level() + more[0] - kept_samples, float(len(sizes_bytes)))
        by_bytes = len(sizes_bytes)
        if self._bytes.is_limited:
            sizes = np.minimum(sizes_bytes, self._bytes.capacity - kept_bytes)
            left = self._bytes.level() + more[1] - kept_bytes
            by_bytes = int(np.searchsorted(np.cumsum(sizes), left, side="right"))
        granted = min(int(max(by_count, 0.0)), by_bytes)
        self._samples.spend(granted)
        self._bytes.spend(float(sizes_bytes[:granted].sum()))
        return granted

    def _size_reserve(self) -> None:
        """Fit the reserve and the share in force to the needs of all sources."""
        if not self.is_limited:
            self._halvings, self.audit_part, self._kept_samples, self._kept_bytes = 0, 1.0, 0.0, 0.0
            return
        samples, audit_bytes = _audits_per_s(self._needs.values())
        load = 0.0
        if self._samples.is_limited:
            load = samples / (AUDIT_PART * self._samples_per_s)
        if self._bytes.is_limited:
            load = max(load, audit_bytes / (AUDIT_PART * self.bytes_per_s))
        self._halvings = halvings(load, self._halvings)
        self.audit_part = 2.0**-self._halvings
        per_s = self.audit_part * samples
        self._audit_bytes = audit_bytes / samples if samples > 0 else 0.0
        self._kept_samples = kept_tokens(per_s, 1.0, self._burst_s, self._samples.capacity)
        self._kept_bytes = kept_tokens(per_s, self._audit_bytes, self._burst_s, self._bytes.capacity)

    def _borrowed(self) -> tuple[float, float]:
        """Return samples and bytes that audits may take from small buckets in advance."""
        if not self._needs:
            return 0.0, 0.0
        of_bytes = BORROWED_AUDITS * self._audit_bytes - self._kept_bytes
        return max(0.0, BORROWED_AUDITS - self._kept_samples), max(0.0, of_bytes)

    def correct(self, extra_bytes: float) -> None:
        """Charge the difference between real and estimated sizes; a negative difference is given back."""
        with self._lock:
            self._bytes.spend(extra_bytes)


def _audits_per_s(needs: Iterable[AuditNeed]) -> tuple[float, float]:
    """Return the audits a second that the configured shares ask for, and their bytes a second."""
    listed = tuple(needs)
    counts = [need.share * need.rate_per_s for need in listed]
    return sum(counts), sum(count * need.audit_bytes for count, need in zip(counts, listed, strict=True))
