"""Messages between the processes on a database, by NOTIFY: they pass through no table and no write-ahead log."""

import asyncio
import base64
import binascii
import contextlib
import math
import os
import re
from collections import OrderedDict
from collections.abc import Callable

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from cloud.store.engine import MAX_TOLD_BYTES
from cloud.store.postgres.connecting import DATABASE_ERRORS, connect
from shared.backoff import Backoff
from shared.errors import VedetteError

CHANNEL = "vedette_messages"
PART_CHARACTERS = 7500  # PostgreSQL takes payloads of less than 8000 bytes
MAX_PARTS = math.ceil(4 * math.ceil(MAX_TOLD_BYTES / 3) / PART_CHARACTERS)  # of the largest message, as base64
MAX_INCOMPLETE = 64  # messages of which parts are missing
CHECK_S = 8.0
CANCEL_S = 1.0
RETRY_MIN_S, RETRY_MAX_S = 0.1, 5.0
_PART = re.compile(r"([0-9a-f]{16}) ([0-9]{1,4}) ([0-9]{1,4}) (.*)", re.ASCII | re.DOTALL)
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
                    self._incomplete.clear()  # the missing parts went to the lost connection
                    await connection.add_listener(CHANNEL, self._on_notification)
                    backoff.reset()
                    while True:
                        await asyncio.sleep(CHECK_S)
                        await connection.execute("SELECT 1", timeout=CHECK_S)
                finally:
                    connection.terminate()
            await asyncio.sleep(backoff.next_s())

    def _on_notification(self, _: asyncpg.Connection, __: int, ___: str, payload: object) -> None:
        """Keep one part; call the callbacks when all parts of its message are there. Ignore what is no part."""
        found = _PART.fullmatch(str(payload))
        if found is None:
            return
        key, number, count, data = found[1], int(found[2]), int(found[3]), found[4]
        if not 0 <= number < count <= MAX_PARTS or len(data) > PART_CHARACTERS:
            return
        parts = self._incomplete.setdefault(key, {})
        parts[number] = data
        if len(parts) == count and max(parts) == count - 1:
            del self._incomplete[key]
            self._receive("".join(parts[place] for place in range(count)))
        while len(self._incomplete) > MAX_INCOMPLETE:
            self._incomplete.popitem(last=False)

    def _receive(self, data: str) -> None:
        """Call the callbacks with a whole message, given as base64."""
        try:
            message = base64.b64decode(data, validate=True)
        except binascii.Error:  # of another program
            return
        if len(message) <= MAX_TOLD_BYTES:
            for callback in self._callbacks:
                callback(message)
