"""Commits of all processes, counted by LISTEN and NOTIFY."""

import asyncio
import contextlib

import asyncpg

from cloud.store.postgres.connecting import DATABASE_ERRORS, connect
from shared.backoff import Backoff
from shared.errors import VedetteError

CHANNEL = "vedette_changes"
PING_S = 10.0
ANNOUNCE_EVERY_S = 0.02
RETRY_MIN_S, RETRY_MAX_S = 0.1, 5.0


class Changes:
    """Counter that changes with each commit that was announced, of this process or another.

    It listens on a connection of its own from the first call on. While that connection is missing, every call of
    `version` returns another number, so that a reader rather reads too often.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._count = 0
        self._listens = False
        self._task: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()

    def version(self) -> int:
        """Return the counter."""
        self._start()
        if not self._listens:
            self._count += 1
        return self._count

    def announce(self) -> None:
        """Tell all processes soon that this one has committed; calls close together become one."""
        self._start()
        self._asked.set()

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._listens = False

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        while True:
            with contextlib.suppress(VedetteError, OSError, *DATABASE_ERRORS):
                connection = await connect(self._url)
                try:
                    await connection.add_listener(CHANNEL, self._on_notification)
                    self._listens, self._count = True, self._count + 1
                    backoff.reset()
                    await self._pass_on(connection)
                finally:
                    self._listens = False
                    connection.terminate()
            await asyncio.sleep(backoff.next_s())

    async def _pass_on(self, connection: asyncpg.Connection) -> None:
        """Send announcements, and ask from time to time whether the server is still there."""
        while True:
            asked = False
            with contextlib.suppress(TimeoutError):
                asked = await asyncio.wait_for(self._asked.wait(), PING_S)
            self._asked.clear()
            statement = f"SELECT pg_notify('{CHANNEL}', '')" if asked else "SELECT 1"
            await connection.execute(statement, timeout=PING_S)
            await asyncio.sleep(ANNOUNCE_EVERY_S)

    def _on_notification(self, *_: object) -> None:
        self._count += 1
