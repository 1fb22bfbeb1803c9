"""Admission control: bound the backlog; the rest waits in the devices' spools."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import grpc

from cloud.limit_settings import LimitSettings
from cloud.service.analysis_port import DeviceLoad
from cloud.service.rate_limit import RateLimit
from cloud.service.request_slots import RequestSlots
from cloud.store.judging import Backlog

BUSY_RETRY_MS = 200
MIN_RETRY_MS, MAX_RETRY_MS = 500, 30_000
MAX_BYTES_IN_WORK = 256 * 2**20
UNFINISHED_BYTES = 4 * 2**20

_Changes: TypeAlias = dict[str, tuple[int, int]]
"""Changes of the waiting samples and their decoded bytes, by device."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Reason why a request is refused, and the time after which to retry; None: never, as it is."""

    kind: str
    message: str
    retry_after_ms: int | None
    code: grpc.StatusCode = grpc.StatusCode.RESOURCE_EXHAUSTED


def invalid(message: str) -> Refusal:
    """Return the refusal of a request that the service will never accept."""
    return Refusal("invalid", message, None, grpc.StatusCode.INVALID_ARGUMENT)


@dataclass(frozen=True, slots=True)
class Load:
    """Size of a request or of a part of it: samples, bytes as sent, bytes after decoding."""

    samples: int
    sent_bytes: int
    decoded_bytes: int


class Admission:
    """Requests under way, and samples that wait for a verdict or are being stored; used on the event loop only."""

    def __init__(self, limits: LimitSettings, backlog: Backlog) -> None:
        self.slots = RequestSlots(limits)
        self._limits = limits
        self._samples = RateLimit(60 * limits.samples_per_second_per_device, limits.burst_samples_per_device)
        self._sent = RateLimit(60 * limits.bytes_per_second_per_device, limits.burst_bytes_per_device)
        self._rejections = RateLimit(limits.rejections_per_minute_per_device, limits.rejections_per_minute_per_device)
        self._total = backlog.total
        self._by_device = dict(backlog.by_device)
        self._decoded = dict(backlog.decoded_bytes)
        self._bytes = 0
        self._judged_a_second = 50.0
        self._in_work: dict[Admitted, tuple[str, Load]] = {}
        self._recounts: list[_Changes] = []  # changes since each of the counts under way began

    @property
    def backlog(self) -> int:
        """Samples that wait for a verdict or are being stored."""
        return self._total

    def refusal_at_start(self, device_id: str) -> Refusal | None:
        """Return why a request must wait before any byte of it is read, or None."""
        limits = self._limits
        if (wait_s := self._rejections.debt_s(device_id)) > 0:
            per_minute = limits.rejections_per_minute_per_device
            return _pause("rejections", f"Over {per_minute} requests of {device_id!r} a minute were rejected", wait_s)
        if (wait_s := self._sent.debt_s(device_id)) > 0:
            bytes_per_s = limits.bytes_per_second_per_device
            return _pause("bytes", f"Device {device_id!r} sends over {bytes_per_s} bytes a second", wait_s)
        if (wait_s := self._samples.debt_s(device_id)) > 0:
            samples_per_s = limits.samples_per_second_per_device
            return _pause("samples", f"Device {device_id!r} sends over {samples_per_s:g} samples a second", wait_s)
        return self._backlog_refusal(device_id, Load(1, 0, 0))

    def arrived(self, device_id: str, sent_bytes: int) -> None:
        """Count a request that was read; it also counts as rejected until it is excused."""
        self._sent.spend(device_id, sent_bytes)
        self._rejections.spend(device_id, _weight(sent_bytes))

    def did_not_arrive(self, device_id: str) -> None:
        """Count a request whose arrival ended early; nobody knows how much of it was read."""
        self._sent.spend(device_id, UNFINISHED_BYTES)

    def excuse(self, device_id: str, sent_bytes: int, share: float = 1.0) -> None:
        """Count a share of a request, in [0, 1], no longer as rejected."""
        self._rejections.spend(device_id, -share * _weight(sent_bytes))

    def refusal(self, device_id: str, load: Load) -> Refusal | None:
        """Return why a request that arrived must wait, or None; an empty queue admits a request of any size."""
        limit = self._limits.decoded_bytes_per_request
        if load.samples > 1 and load.decoded_bytes > limit:
            return invalid(f"The samples decode to {load.decoded_bytes} bytes; the limit is {limit}: send fewer.")
        if self._bytes and self._bytes + load.sent_bytes > MAX_BYTES_IN_WORK:
            return Refusal("busy", "The service stores as many requests as it can: try again.", BUSY_RETRY_MS)
        return self._backlog_refusal(device_id, load)

    def _backlog_refusal(self, device_id: str, load: Load) -> Refusal | None:
        """Return a refusal if the device's backlog is too large.

        Its limit is half of the free places, so any number of greedy devices leaves room for the others (dynamic
        thresholds, Choudhury and Hahne 1998).
        """
        limits = self._limits
        own, decoded = self._by_device.get(device_id, 0), self._decoded.get(device_id, 0)
        free = limits.backlog_samples - self._total
        if own and own + load.samples > min(limits.backlog_samples_per_device, free // 2):
            return self._wait("device_backlog", f"{own} samples of {device_id!r} wait for their verdict", own)
        if own and decoded + load.decoded_bytes > limits.decoded_bytes_per_device:
            return self._wait("device_backlog", f"samples of {device_id!r} with {decoded} bytes wait", own)
        if self._total and load.samples > free:
            return self._wait("backlog", f"{self._total} samples wait for their verdict", self._total)
        return None

    @contextlib.contextmanager
    def admit(self, device_id: str, load: Load) -> Iterator["Admitted"]:
        """Reserve room for a request while it is checked and stored; release the part that was not stored."""
        self._bytes += load.sent_bytes
        self._samples.spend(device_id, load.samples)
        self._add(device_id, load.samples, load.decoded_bytes)
        admitted = Admitted()
        self._in_work[admitted] = device_id, load
        try:
            yield admitted
        finally:
            del self._in_work[admitted]
            self._bytes -= load.sent_bytes
            stored = admitted.stored
            self._note(device_id, stored.samples, stored.decoded_bytes)
            self._add(device_id, stored.samples - load.samples, stored.decoded_bytes - load.decoded_bytes)

    def judged(self, judged: Sequence[DeviceLoad], seconds: float) -> None:
        """Record judged samples, all judged within `seconds`."""
        for load in judged:
            self.leave(load.device_id, load.samples, load.decoded_bytes)
        rate = sum(load.samples for load in judged) / max(seconds, 1e-3)
        self._judged_a_second += 0.2 * (rate - self._judged_a_second)

    def leave(self, device_id: str, samples: int, decoded_bytes: int) -> None:
        """Record samples that wait no more, such as those that were sent twice."""
        self._note(device_id, -samples, -decoded_bytes)
        self._add(device_id, -samples, -decoded_bytes)

    @contextlib.contextmanager
    def recounting(self) -> Iterator[Callable[[Backlog, float | None], None]]:
        """Let the block count the waiting samples in the store; yield the function that takes the result.

        Its arguments are the backlog, and the verdicts a second of all processes, None if unknown.
        Changes during the count are added to it; a few samples may count twice, or not, until the next count. Several
        counts may run at once.
        """
        changes: _Changes = {}
        self._recounts.append(changes)
        try:
            yield partial(self._recount, changes)
        finally:
            self._recounts = [each for each in self._recounts if each is not changes]

    def _recount(self, changes: _Changes, backlog: Backlog, judged_a_second: float | None) -> None:
        self._total, self._by_device = backlog.total, dict(backlog.by_device)
        self._decoded = dict(backlog.decoded_bytes)
        for device_id, load in self._in_work.values():
            self._add(device_id, load.samples, load.decoded_bytes)
        for device_id, change in changes.items():
            self._add(device_id, *change)
        if backlog.total and judged_a_second is not None:
            self._judged_a_second += 0.2 * (judged_a_second - self._judged_a_second)

    def _note(self, device_id: str, samples: int, decoded_bytes: int) -> None:
        for changes in self._recounts:
            before_samples, before_bytes = changes.get(device_id, (0, 0))
            changes[device_id] = before_samples + samples, before_bytes + decoded_bytes

    def _add(self, device_id: str, samples: int, decoded_bytes: int) -> None:
        before = self._by_device.get(device_id, 0)
        after = max(0, before + samples)
        self._total += after - before
        self._by_device[device_id] = after
        self._decoded[device_id] = max(0, self._decoded.get(device_id, 0) + decoded_bytes)
        if not after:
            del self._by_device[device_id], self._decoded[device_id]

    def _wait(self, kind: str, what: str, waiting: int) -> Refusal:
        # By then about half of the queue is judged.
        return _pause(kind, what, 0.5 * waiting / max(self._judged_a_second, 1.0))


def _weight(sent_bytes: int) -> float:
    """Return how much a rejected request counts: once, or once for each MiB."""
    return max(1.0, sent_bytes / 2**20)


def _pause(kind: str, what: str, pause_s: float) -> Refusal:
    """Return the refusal that asks for a pause, within MIN_RETRY_MS and MAX_RETRY_MS."""
    return Refusal(kind, f"{what}: try again later.", min(max(int(1000 * pause_s), MIN_RETRY_MS), MAX_RETRY_MS))


@dataclass(slots=True, eq=False)
class Admitted:
    """Result of an admitted request: the part that was stored now waits for its verdict."""

    stored: Load = Load(0, 0, 0)
