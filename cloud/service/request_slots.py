"""Bound of the requests that arrive or are being handled, per device and in all.

A request holds a slot before its first byte is read, so memory is bounded by the number of slots times the largest
message. Devices share the slots: the fewer are free, the fewer one device may hold.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from cloud.limit_settings import LimitSettings

T = TypeVar("T")
QUEUE_S = 2.0
MAX_QUEUED = 1024  # each with what gRPC reads ahead, up to 64 KiB
MAX_ARRIVAL_S = 600.0  # longest deadline of an agent on a slow link


@dataclass(slots=True, eq=False)
class Slot:
    """Place of one request; `cancel_arrival` is set while its bytes arrive."""

    device_id: str
    started_s: float = field(default_factory=time.monotonic)
    cancel_arrival: Callable[[], object] | None = None
    is_evicted: bool = False


class RequestSlots:
    """Slots for requests; used on the event loop only.

    A request that finds none waits for one up to QUEUE_S, unread: one of each device, MAX_QUEUED in all. So small
    requests of many devices that come at once are answered in their turn, and one device cannot fill the queue.
    """

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits
        self._slots: set[Slot] = set()
        self._by_device: dict[str, int] = {}
        self._queue: dict[str, asyncio.Future[Slot]] = {}  # by device, in the order of arrival

    async def take(self, device_id: str) -> Slot | None:
        """Return a slot, which the caller must `free`; None if there is none in time.

        If no slot is free, the request that has been arriving longest loses its slot, provided that it took more than
        `arrival_s`.
        """
        if self._is_free(device_id):
            return self._hold(device_id)
        if len(self._slots) >= self._limits.concurrent_submits:
            self._evict()
        if device_id in self._queue or len(self._queue) >= MAX_QUEUED:
            return None
        turn: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self._queue[device_id] = turn
        try:
            async with asyncio.timeout(QUEUE_S):
                await turn
        except TimeoutError:
            pass  # a slot may have come in the same turn of the event loop as the end of the time
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.free(turn.result())
            raise
        finally:
            if self._queue.get(device_id) is turn:
                del self._queue[device_id]
        return None if turn.cancelled() else turn.result()

    def free(self, slot: Slot) -> None:
        """Give a slot back, and on to the requests that wait."""
        self._slots.remove(slot)
        self._by_device[slot.device_id] -= 1
        if not self._by_device[slot.device_id]:
            del self._by_device[slot.device_id]
        for device_id, turn in list(self._queue.items()):
            if len(self._slots) >= self._limits.concurrent_submits:
                break
            if not turn.done() and self._is_free(device_id):
                del self._queue[device_id]
                turn.set_result(self._hold(device_id))

    def _is_free(self, device_id: str) -> bool:
        """Return whether the device may start another request now."""
        free = self._limits.concurrent_submits - len(self._slots)
        share = max(1, min(self._limits.concurrent_submits_per_device, free // 2))
        return free > 0 and self._by_device.get(device_id, 0) < share

    def _hold(self, device_id: str) -> Slot:
        slot = Slot(device_id)
        self._slots.add(slot)
        self._by_device[device_id] = self._by_device.get(device_id, 0) + 1
        return slot

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


def evict_overdue(slots: Iterable[Slot]) -> None:
    """End the arrival of requests that have been arriving for MAX_ARRIVAL_S; one timer serves all."""
    now_s = time.monotonic()
    for slot in slots:
        if now_s - slot.started_s > MAX_ARRIVAL_S:
            evict(slot)


async def arrive(slot: Slot, reading: Awaitable[T]) -> T | None:
    """Return the result of `reading`; None if its slot was evicted."""
    task = asyncio.current_task()
    assert task is not None
    slot.cancel_arrival = task.cancel
    try:
        return await reading
    except asyncio.CancelledError:
        if slot.is_evicted and not task.uncancel():
            return None
        raise
    finally:
        slot.cancel_arrival = None
