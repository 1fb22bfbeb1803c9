"""Commits of all processes, counted by LISTEN and NOTIFY."""

import asyncio
import contextlib
import time
from collections.abc import Callable

import asyncpg

from cloud.store.engine import CLAIM_S
from cloud.store.postgres.connecting import DATABASE_ERRORS, connect
from shared.backoff import Backoff
from shared.errors import VedetteError

CHANNEL = "vedette_changes"
RENEW_S = 8.0
CANCEL_S = 1.0
ANNOUNCE_EVERY_S = 0.02
RETRY_MIN_S, RETRY_MAX_S = 0.1, 5.0
_RENEWAL = f"UPDATE claims SET until_s = extract(epoch FROM clock_timestamp()) + {CLAIM_S} WHERE claimant = $1"


class Changes:
    """Counter that changes with each commit that was announced, of this process or another.

    It listens on a connection of its own from the first call on, over which it also renews the claims of this process
    on samples. While that connection is missing, every call of
    `version` returns another number, so that a reader rather reads too often.
    """

    def __init__(self, url: str, claimant: str) -> None:
        self._url, self._claimant = url, claimant
        self._count = 0
        self._listens = False
        self._task: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()
        self._callbacks: list[Callable[[], None]] = []

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

    def call_on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each announcement, and whenever listening begins."""
        self._callbacks.append(callback)
        self._start()

    async def close(self) -> None:
        """Stop listening."""
        while self._task is not None and not self._task.done():  # a cancelled call of the driver may end well
            self._task.cancel()
            await asyncio.wait([self._task], timeout=CANCEL_S)
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
                    self._listens = True
                    self._on_notification()
                    backoff.reset()
                    await self._pass_on(connection)
                finally:
                    self._listens = False
                    connection.terminate()
            await asyncio.sleep(backoff.next_s())

    async def _pass_on(self, connection: asyncpg.Connection) -> None:
        """Send announcements, and renew claims from time to time, which also shows whether the server is there."""
        renewed_s = time.monotonic()
        while True:
            asked = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RENEW_S):
                    asked = await self._asked.wait()
            self._asked.clear()
            if asked:
                await connection.execute(f"SELECT pg_notify('{CHANNEL}', '')", timeout=RENEW_S)
            if time.monotonic() - renewed_s >= RENEW_S:
                await connection.execute(_RENEWAL, self._claimant, timeout=RENEW_S)
                renewed_s = time.monotonic()
            await asyncio.sleep(ANNOUNCE_EVERY_S)

    def _on_notification(self, *_: object) -> None:
        self._count += 1
        for callback in self._callbacks:
            callback()
