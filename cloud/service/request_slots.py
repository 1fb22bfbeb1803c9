"""Bound of the requests that arrive or are being handled, per device and in all.

A request holds a slot before its first byte is read, so memory is bounded by the number of slots times the largest
message. Devices share the slots: the fewer are free, the fewer one device may hold.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from cloud.settings import LimitSettings

T = TypeVar("T")
MAX_ARRIVAL_S = 600.0  # longest deadline of an agent on a slow link


@dataclass(slots=True, eq=False)
class Slot:
    """Place of one request; `cancel_arrival` is set while its bytes arrive."""

    device_id: str
    started_s: float = field(default_factory=time.monotonic)
    cancel_arrival: Callable[[], object] | None = None
    is_evicted: bool = False


class RequestSlots:
    """Slots for requests; used on the event loop only."""

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits
        self._slots: list[Slot] = []
        self._by_device: dict[str, int] = {}

    def is_free(self, device_id: str) -> bool:
        """Return whether the device may start another request now.

        If no slot is free, the request that has been arriving longest loses its slot, provided that it took more than
        `arrival_s`; the caller is refused this once and finds a slot at its next attempt.
        """
        free = self._limits.concurrent_submits - len(self._slots)
        if free <= 0:
            self._evict()
            return False
        share = max(1, min(self._limits.concurrent_submits_per_device, free // 2))
        return self._by_device.get(device_id, 0) < share

    @contextlib.contextmanager
    def take(self, device_id: str) -> Iterator[Slot]:
        """Hold a slot for a request."""
        slot = Slot(device_id)
        self._slots.append(slot)
        self._by_device[device_id] = self._by_device.get(device_id, 0) + 1
        try:
            yield slot
        finally:
            self._slots.remove(slot)
            self._by_device[device_id] -= 1
            if not self._by_device[device_id]:
                del self._by_device[device_id]

    def _evict(self) -> None:
        """End the arrival of the slowest request, if it is slow."""
        now_s = time.monotonic()
        slow = [
            slot
            for slot in self._slots
            if slot.cancel_arrival is not None and now_s - slot.started_s > self._limits.arrival_s
        ]
        if slow:
            evict(min(slow, key=lambda slot: slot.started_s))


def evict(slot: Slot) -> None:
    """End the arrival of a request, if it has not arrived yet."""
    if slot.cancel_arrival is not None:
        slot.is_evicted = True
        slot.cancel_arrival()


async def arrive(slot: Slot, reading: Awaitable[T]) -> T | None:
    """Return the result of `reading`; None if it takes too long, or if its slot was evicted."""
    task = asyncio.current_task()
    assert task is not None
    slot.cancel_arrival = task.cancel
    try:
        async with asyncio.timeout(MAX_ARRIVAL_S):
            return await reading
    except TimeoutError:
        return None
    except asyncio.CancelledError:
        if slot.is_evicted and not task.uncancel():
            return None
        raise
    finally:
        slot.cancel_arrival = None
