"""Wakes event streams when the store has new events, from this process or another."""

import asyncio
import contextlib
from collections.abc import Callable

from cloud.store import Store
from cloud.store.events import audiences_between, newest_cursor
from cloud.store.schema import ALL_DEVICES

POLL_S = 0.5


class EventNotifier:
    """Cursor of the newest event, in all and of each device.

    This process announces its writes; those of others are found within POLL_S. A stream is woken by events of its own
    device only, so that streams which only listen read nothing.
    """

    def __init__(self, store: Store, on_failure: Callable[[Exception], None]) -> None:
        self._store = store
        self._on_failure = on_failure
        self._announced = asyncio.Event()
        self._newest_of: dict[str, int] = {ALL_DEVICES: 0}
        self._waiting: dict[str, asyncio.Event] = {}
        self.closed = False
        self.newest = 0

    def announce(self) -> None:
        """Announce that this process has written events."""
        self._announced.set()

    def close(self) -> None:
        """Wake all streams so that they end."""
        self.closed = True
        self._wake({ALL_DEVICES})

    async def run(self) -> None:
        """Follow the store until cancelled."""
        while True:
            self._announced.clear()
            try:
                await self._follow()
            except Exception as error:  # any failed query: the next one may succeed, and streams depend on it
                self._on_failure(error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._announced.wait(), POLL_S)

    async def wait_beyond(self, device_id: str, cursor: int, timeout_s: float) -> bool:
        """Wait until the device has an event after the cursor; return False after the timeout or when closed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self._has_more(device_id, cursor) and not self.closed:
                    await self._waiting.setdefault(device_id, asyncio.Event()).wait()
        return self._has_more(device_id, cursor) and not self.closed

    async def _follow(self) -> None:
        """Wake the streams of devices that got events since the last call."""
        newest = await newest_cursor(self._store)
        if newest == self.newest:
            return
        at_start = self.newest == 0
        audiences = {ALL_DEVICES} if at_start else await audiences_between(self._store, self.newest, newest)
        self._newest_of.update(dict.fromkeys(audiences, newest))
        self.newest = newest
        self._wake(audiences)

    def _has_more(self, device_id: str, cursor: int) -> bool:
        return max(self._newest_of.get(device_id, 0), self._newest_of[ALL_DEVICES]) > cursor

    def _wake(self, audiences: set[str]) -> None:
        for device_id in tuple(self._waiting) if ALL_DEVICES in audiences else audiences & self._waiting.keys():
            self._waiting.pop(device_id).set()
