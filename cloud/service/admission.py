"""Admission control: bound the backlog; the rest waits in the devices' spools."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import grpc

from cloud.service.request_slots import RequestSlots
from cloud.settings import LimitSettings
from cloud.store.judging import Backlog

BUSY_RETRY_MS = 200
MIN_RETRY_MS, MAX_RETRY_MS = 500, 30_000
MAX_BYTES_IN_WORK = 256 * 2**20


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


class Admission:
    """Requests under way, and samples that wait for a verdict or are being stored; used on the event loop only."""

    def __init__(self, limits: LimitSettings, backlog: Backlog) -> None:
        self.slots = RequestSlots(limits)
        self._limits = limits
        self._total = backlog.total
        self._by_device = dict(backlog.by_device)
        self._bytes = 0
        self._judged_a_second = 50.0

    @property
    def backlog(self) -> int:
        """Samples that wait for a verdict or are being stored."""
        return self._total

    def refusal_at_start(self, device_id: str) -> Refusal | None:
        """Return why a request must wait before any byte of it is read, or None."""
        if not self.slots.is_free(device_id):
            return Refusal("busy", "The service handles as many requests as it can: try again.", BUSY_RETRY_MS)
        return self._backlog_refusal(device_id, 1)

    def refusal(self, device_id: str, samples: int, request_bytes: int) -> Refusal | None:
        """Return why a request that arrived must wait, or None; an empty queue admits a request of any size."""
        if self._bytes and self._bytes + request_bytes > MAX_BYTES_IN_WORK:
            return Refusal("busy", "The service stores as many requests as it can: try again.", BUSY_RETRY_MS)
        return self._backlog_refusal(device_id, samples)

    def _backlog_refusal(self, device_id: str, samples: int) -> Refusal | None:
        """Return a refusal if the device's backlog is too large.

        Its limit is half of the free places, so any number of greedy devices leaves room for the others (dynamic
        thresholds, Choudhury and Hahne 1998).
        """
        limits = self._limits
        own = self._by_device.get(device_id, 0)
        free = limits.backlog_samples - self._total
        if own and own + samples > min(limits.backlog_samples_per_device, free // 2):
            return self._wait("device_backlog", f"{own} samples of {device_id!r} wait for their verdict", own)
        if self._total and samples > free:
            return self._wait("backlog", f"{self._total} samples wait for their verdict", self._total)
        return None

    @contextlib.contextmanager
    def admit(self, device_id: str, samples: int, request_bytes: int) -> Iterator["Admitted"]:
        """Reserve room for a request while it is checked and stored; release what was not stored."""
        self._bytes += request_bytes
        self._add(device_id, samples)
        admitted = Admitted()
        try:
            yield admitted
        finally:
            self._bytes -= request_bytes
            self._add(device_id, admitted.stored - samples)

    def judged(self, device_ids: list[str], seconds: float) -> None:
        """Record that one sample per entry of `device_ids` was judged, all within `seconds`."""
        for device_id in device_ids:
            self._add(device_id, -1)
        rate = len(device_ids) / max(seconds, 1e-3)
        self._judged_a_second += 0.2 * (rate - self._judged_a_second)

    def _add(self, device_id: str, samples: int) -> None:
        self._total += samples
        self._by_device[device_id] = self._by_device.get(device_id, 0) + samples
        if self._by_device[device_id] <= 0:
            del self._by_device[device_id]

    def _wait(self, kind: str, what: str, waiting: int) -> Refusal:
        # By then about half of the queue is judged.
        pause_ms = int(500 * waiting / max(self._judged_a_second, 1.0))
        return Refusal(kind, f"{what}: try again later.", min(max(pause_ms, MIN_RETRY_MS), MAX_RETRY_MS))


@dataclass(slots=True)
class Admitted:
    """Result of an admitted request: `stored` samples now wait for their verdict."""

    stored: int = 0
