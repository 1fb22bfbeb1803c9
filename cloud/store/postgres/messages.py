"""Messages between the processes on a database, by NOTIFY: they pass through no table and no write-ahead log."""

import asyncio
import base64
import binascii
import contextlib
import os
from collections import OrderedDict
from collections.abc import Callable

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from cloud.store.postgres.connecting import DATABASE_ERRORS, connect
from shared.backoff import Backoff
from shared.errors import VedetteError

CHANNEL = "vedette_messages"
PART_CHARACTERS = 7500  # PostgreSQL takes payloads of less than 8000 bytes
MAX_INCOMPLETE = 64  # messages of which parts are missing
CHECK_S = 8.0
CANCEL_S = 1.0
RETRY_MIN_S, RETRY_MAX_S = 0.1, 5.0
_SEND = text(f"SELECT pg_notify('{CHANNEL}', part) FROM unnest(CAST(:parts AS text[])) WITH ORDINALITY AS p (part, n)")


class Messages:
    """Messages of all processes. It listens on a connection of its own from the first `call_on_message` on."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._task: asyncio.Task[None] | None = None
        self._callbacks: list[Callable[[bytes], None]] = []
        self._incomplete: OrderedDict[str, dict[int, str]] = OrderedDict()

    async def send(self, engine: AsyncEngine, message: bytes) -> None:
        """Send a message in parts that arrive together; raises the errors of the driver."""
        data, key = base64.b64encode(message).decode(), os.urandom(8).hex()
        cut = [data[place : place + PART_CHARACTERS] for place in range(0, max(1, len(data)), PART_CHARACTERS)]
        parts = [f"{key} {number} {len(cut)} {part}" for number, part in enumerate(cut)]
        async with engine.begin() as connection:
            await connection.execute(_SEND, {"parts": parts})

    def call_on_message(self, callback: Callable[[bytes], None]) -> None:
        """Call `callback` with each message from now on."""
        self._callbacks.append(callback)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop listening."""
        while self._task is not None and not self._task.done():  # a cancelled call of the driver may end well
            self._task.cancel()
            await asyncio.wait([self._task], timeout=CANCEL_S)
        self._task = None

    async def _run(self) -> None:
        backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        while True:
            with contextlib.suppress(VedetteError, OSError, *DATABASE_ERRORS):
                connection = await connect(self._url)
                try:
                    await connection.add_listener(CHANNEL, self._on_notification)
                    backoff.reset()
                    while True:
                        await asyncio.sleep(CHECK_S)
                        await connection.execute("SELECT 1", timeout=CHECK_S)
                finally:
                    connection.terminate()
            await asyncio.sleep(backoff.next_s())

    def _on_notification(self, _: asyncpg.Connection, __: int, ___: str, payload: object) -> None:
        """Keep one part; call the callbacks when all parts of its message are there."""
        try:
            key, number, count, data = str(payload).split(" ", 3)
            parts = self._incomplete.setdefault(key, {})
            parts[int(number)] = data
            if len(parts) < int(count):
                if len(self._incomplete) > MAX_INCOMPLETE:
                    self._incomplete.popitem(last=False)
                return
            del self._incomplete[key]
            message = base64.b64decode("".join(parts[place] for place in range(int(count))), validate=True)
        except (ValueError, KeyError, binascii.Error):  # of another program
            return
        for callback in self._callbacks:
            callback(message)
