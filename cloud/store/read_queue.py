"""Queue of readers for a small pool of connections, with a deadline for each."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from shared.errors import StoreBusyError

_BUSY = "The store is busy: try again in a few seconds."


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Bounds of a pool of readers.

    `connections` read at the same time, `waiting` more wait in the queue. `deadline_s` bounds waiting and reading
    together; infinity waits as long as the pool allows.
    """

    connections: int
    waiting: int
    deadline_s: float


DEVICE_READS = ReadLimits(connections=4, waiting=10_000, deadline_s=math.inf)
CONSOLE_READS = ReadLimits(connections=2, waiting=100, deadline_s=4.0)


@dataclass(slots=True)
class Deadline:
    """Time at which SQLite interrupts the running query of a connection; `stopped` interrupts it at once."""

    stopped: asyncio.Event
    at_s: float = field(default=math.inf)

    def is_over(self) -> bool:
        """Return whether the query must end."""
        return self.stopped.is_set() or time.monotonic() > self.at_s


class ReadQueue:
    """Turns of readers; a reader beyond the limits is refused at once, and one that waits too long later."""

    def __init__(self, limits: ReadLimits) -> None:
        self._limits = limits
        self._free = asyncio.Semaphore(limits.connections)
        self._waiting = 0

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[float]:
        """Wait for a turn; return the time at which it must end. Raises StoreBusyError."""
        until_s = time.monotonic() + self._limits.deadline_s
        if self._waiting >= self._limits.waiting:
            raise StoreBusyError(_BUSY)
        self._waiting += 1
        try:
            wait_s = None if math.isinf(self._limits.deadline_s) else self._limits.deadline_s
            async with asyncio.timeout(wait_s):
                await self._free.acquire()
        except TimeoutError:
            raise StoreBusyError(_BUSY) from None
        finally:
            self._waiting -= 1
        try:
            yield until_s
        finally:
            self._free.release()
