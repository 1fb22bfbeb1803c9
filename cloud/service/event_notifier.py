"""Wakes event streams when the store has new events, from this process or another."""

import asyncio
import contextlib
from collections.abc import Callable

from cloud.store import Store
from cloud.store.events import newest_cursor

POLL_S = 0.5


class EventNotifier:
    """Cursor of the newest event. This process announces its writes; others' are found within POLL_S."""

    def __init__(self, store: Store, on_failure: Callable[[Exception], None]) -> None:
        self._store = store
        self._on_failure = on_failure
        self._changed = asyncio.Event()
        self._announced = asyncio.Event()
        self.closed = False
        self.newest = 0

    def announce(self) -> None:
        """Announce that this process has written events."""
        self._announced.set()

    def close(self) -> None:
        """Wake all streams so that they end."""
        self.closed = True
        self._changed.set()

    async def run(self) -> None:
        """Follow the store until cancelled."""
        while True:
            self._announced.clear()
            try:
                newest = await newest_cursor(self._store)
            except Exception as error:  # any failed query: the next one may succeed, and streams depend on it
                self._on_failure(error)
                newest = self.newest
            if newest != self.newest:
                self.newest = newest
                self._changed.set()
                self._changed = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._announced.wait(), POLL_S)

    async def wait_beyond(self, cursor: int, timeout_s: float) -> bool:
        """Wait until there is an event after the cursor; return False after the timeout or when closed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.newest <= cursor and not self.closed:
                    await self._changed.wait()
        return self.newest > cursor and not self.closed
