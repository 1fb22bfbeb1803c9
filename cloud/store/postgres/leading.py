"""Lead of one process among several: an advisory lock that PostgreSQL releases with its connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg

from cloud.store.postgres.connecting import DATABASE_ERRORS, connect
from shared.backoff import Backoff
from shared.errors import VedetteError

LEADER_LOCK = 0x7665_6465_7474_6504  # of pg_try_advisory_lock
TRY_EVERY_S = 1.0
CHECK_S = 5.0  # between two checks that the connection is open, and the deadline of each
RETRY_MIN_S, RETRY_MAX_S = 0.2, 5.0


@contextlib.asynccontextmanager
async def leading(url: str) -> AsyncIterator[asyncio.Future[None]]:
    """Lead for the time of the block; the future is done when the connection is lost."""
    connection = await _lead(url)
    lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    watching = asyncio.create_task(_watch(connection, lost))
    try:
        yield lost
    finally:
        watching.cancel()
        connection.terminate()


async def _lead(url: str) -> asyncpg.Connection:
    """Return the connection that holds the lock, as soon as no other process holds it."""
    backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S)
    while True:
        with contextlib.suppress(VedetteError, OSError, *DATABASE_ERRORS):
            connection = await connect(url)
            try:
                while not await connection.fetchval(f"SELECT pg_try_advisory_lock({LEADER_LOCK})", timeout=CHECK_S):
                    backoff.reset()
                    await asyncio.sleep(TRY_EVERY_S)
                return connection
            except BaseException:
                connection.terminate()
                raise
        await asyncio.sleep(backoff.next_s())


async def _watch(connection: asyncpg.Connection, lost: asyncio.Future[None]) -> None:
    """Ask the server regularly; set the future when it does not answer."""
    with contextlib.suppress(OSError, *DATABASE_ERRORS):
        while True:
            await asyncio.sleep(CHECK_S)
            await connection.execute("SELECT 1", timeout=CHECK_S)
    if not lost.done():
        lost.set_result(None)
