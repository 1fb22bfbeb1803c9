"""Check that the store can be written: samples are refused while it cannot."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from cloud.store import Store
from cloud.store.probe import try_write
from shared.errors import StorageError
from shared.logs import EventLog

CHECK_EVERY_S = 2.0
CHECK_AGAIN_S = 0.2
_LOG = EventLog("service")


class StoreCheck:
    """Regular attempt to write into the store.

    `problem` is the reason why it failed, or an empty text; it names no path. `on_change` is called after each change.
    """

    def __init__(self, store: Store, on_change: Callable[[], Awaitable[None]]) -> None:
        self._store, self._on_change = store, on_change
        self._checking = asyncio.Lock()
        self._checked_at_s = -CHECK_AGAIN_S
        self.problem = ""

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await self.check()
            await asyncio.sleep(CHECK_EVERY_S)

    async def current_problem(self) -> str:
        """Return the problem; one that is older than CHECK_AGAIN_S is checked first."""
        if self.problem:
            async with self._checking:
                if self.problem and time.monotonic() - self._checked_at_s > CHECK_AGAIN_S:
                    await self.check()
        return self.problem

    async def check(self) -> None:
        """Try to write once."""
        problem = ""
        try:
            await try_write(self._store)
        except StorageError as error:
            problem = f"the store cannot be written: {_reason(error)}"
            if not self.problem:
                _LOG.error("store_not_writable", error=error)
        self._checked_at_s = time.monotonic()
        if problem != self.problem:
            self.problem = problem
            await self._on_change()


def _reason(error: StorageError) -> str:
    """Return the database's reason, or the error itself, which then names no path."""
    cause = getattr(error.__cause__, "orig", error.__cause__)
    return str(cause or error)
