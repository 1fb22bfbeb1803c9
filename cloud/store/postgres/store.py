"""Store in a PostgreSQL database.

Transactions of `writing` take one advisory lock, which PostgreSQL releases after they have become visible. So the order
of their numbers is the order in which readers see them, as in SQLite; a cursor over the events skips none. The lock
ends with the connection, so a killed process leaves nothing locked. Transactions of `appending` take no lock.
"""

import asyncio
import contextlib
import math
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.copying import copy_rows
from cloud.store.engine import Store, check_told
from cloud.store.inbox_request import Doubles, InboxRequest, Owners
from cloud.store.migrate import migrate
from cloud.store.postgres.changes import CHANNEL, Changes
from cloud.store.postgres.connecting import DATABASE_ERRORS, WRITER_LOCK, new_engine, shown, storage_error
from cloud.store.postgres.expiry import KEEPS_LONGER, drop_expired, keep_room
from cloud.store.postgres.ingest import insert_requests, unpack
from cloud.store.postgres.judging import insert_verdicts
from cloud.store.postgres.leading import leading
from cloud.store.postgres.messages import Messages
from cloud.store.read_queue import DEVICE_READS, ReadLimits, ReadQueue
from cloud.store.sqlite.store import SqliteStore
from cloud.store.verdict_rows import NewVerdict, WrittenVerdicts
from shared.errors import StoreBusyError

APPENDING_CONNECTIONS = 2
_BEGIN_WRITING = text(f"SELECT pg_advisory_xact_lock({WRITER_LOCK}), pg_notify('{CHANNEL}', '')")


class PostgresStore(Store):
    """Store in the database at a URL `postgresql://USER@HOST/DATABASE`."""

    keeps_longer = KEEPS_LONGER

    def __init__(
        self,
        url: str,
        reads: ReadLimits = DEVICE_READS,
        *,
        actor: str = "",
        claimant: str = "",
        segments_url: str = "",
    ) -> None:
        super().__init__(actor, segments_url)
        self.url = url
        self.claimant = claimant or str(uuid.uuid4())
        self._write_lock = asyncio.Lock()
        self._read_queue = ReadQueue(reads)
        self._stopped = False
        self._running: set[asyncio.Timeout] = set()
        self._changes = Changes(url, self.claimant)
        self._messages = Messages(url)
        session = {} if math.isinf(reads.deadline_s) else {"statement_timeout": f"{reads.deadline_s * 1000:.0f}"}
        self._reader = new_engine(
            url,
            session,
            pool_size=reads.connections,
            max_overflow=0,
            isolation_level="REPEATABLE READ",
            execution_options={"postgresql_readonly": True},
        )
        self._writer = new_engine(url, pool_size=1 + APPENDING_CONNECTIONS, max_overflow=0)

    def version(self) -> int:
        """Return the number of announced commits."""
        return self._changes.version()

    def stop_reading(self) -> None:
        """Cancel the queries of all readers, now and later."""
        self._stopped = True
        for limit in self._running:
            limit.reschedule(asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Close all connections."""
        self.stop_reading()
        self.segments.close()
        await self._changes.close()
        await self._messages.close()
        await self._reader.dispose()
        await self._writer.dispose()

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Return a connection in a read-only transaction with one snapshot."""
        with self._storage_errors("read"):
            async with self._read_queue.turn() as until_s, self._limited(until_s), self._reader.begin() as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Run the block as one transaction under the lock of writers, and announce it with its commit."""
        with self._storage_errors("written"):
            async with self._write_lock, self._writer.begin() as connection:
                await connection.execute(_BEGIN_WRITING)  # each later statement sees what was committed before
                yield connection

    def deleting(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Run the block as `writing` does: other transactions go on while the server writes its log."""
        return self.writing()

    @contextlib.asynccontextmanager
    async def appending(self) -> AsyncIterator[AsyncConnection]:
        """Run the block as one transaction without a lock; it is announced after its commit.

        NOTIFY inside the transaction would let PostgreSQL commit one of them at a time.
        """
        with self._storage_errors("written"):
            async with self._writer.begin() as connection:
                yield connection
        self._changes.announce()

    async def append_requests(self, requests: Sequence[InboxRequest]) -> list[Owners | None]:
        """Insert the requests in one statement; those of several processes run beside one another."""
        with self._storage_errors("written"):
            async with self._writer.connect() as connection:
                outcomes = await insert_requests(connection, requests)
        self._changes.announce()
        return outcomes

    async def unpack(self, numbers: Sequence[int]) -> list[Doubles]:
        """Take the requests with SKIP LOCKED, and insert their samples in one statement."""
        if not numbers:
            return []
        with self._storage_errors("written"):
            async with self._writer.connect() as connection:
                try:
                    return await unpack(connection, numbers)
                except asyncpg.CheckViolationError:  # no partition for a new number: housekeeping is late
                    await self.make_room()
                    return await unpack(connection, numbers)

    async def add_verdicts(self, rows: Sequence[NewVerdict]) -> WrittenVerdicts:
        """Insert the rows in one statement for each table."""
        async with self.writing() as connection:
            return await insert_verdicts(connection, self, rows)

    async def make_durable(self, connection: AsyncConnection) -> None:
        """Do nothing: NOTIFY gives each transaction of `writing` a number, and so a record in the log."""

    def call_on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` after commits of any process."""
        self._changes.call_on_change(callback)

    async def tell(self, message: bytes) -> None:
        """Send `message` by NOTIFY."""
        check_told(message)
        with self._storage_errors("written"):
            await self._messages.send(self._writer, message)

    def call_on_message(self, callback: Callable[[bytes], None]) -> None:
        """Call `callback` with the messages of all processes."""
        self._messages.call_on_message(callback)

    def leading(self) -> AbstractAsyncContextManager[asyncio.Future[None]]:
        """Lead by an advisory lock, which ends with its connection."""
        return leading(self.url)

    async def make_room(self) -> None:
        """Make partitions ahead; let the queries of the queue pass those in which no sample waits."""
        with self._storage_errors("prepared"):
            await keep_room(self.url)

    async def drop_expired(self, limits: Mapping[str, float]) -> dict[str, int]:
        """Drop partitions under locks that others wait for 50 ms at most, and keep the rows with labels."""
        with self._storage_errors("cleared"):
            return await drop_expired(self.url, limits)

    async def rest(self, pause_s: float) -> None:
        """Wait: the server writes back by itself."""
        await asyncio.sleep(pause_s)

    async def return_space(self) -> None:
        """Do nothing: PostgreSQL's autovacuum frees the space of deleted rows for new ones."""

    async def copy_to(self, folder: Path) -> None:
        """Copy all rows of one snapshot into a new SQLite store."""
        await asyncio.to_thread(migrate, folder)
        async with self.reading() as connection, SqliteStore(folder) as copy, copy.writing() as target:
            await copy_rows(connection, target)

    @contextlib.asynccontextmanager
    async def _limited(self, until_s: float) -> AsyncIterator[None]:
        """Cancel the block, and its query in the server, at a time of the monotonic clock, or when reading stops."""
        now_s = asyncio.get_running_loop().time()
        limit = asyncio.timeout_at(None if math.isinf(until_s) else now_s + until_s - time.monotonic())
        try:
            async with limit:
                self._running.add(limit)
                if self._stopped:
                    limit.reschedule(now_s)
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise StoreBusyError("The query took too long: try again, or restrict it.") from error
        finally:
            self._running.discard(limit)

    @contextlib.contextmanager
    def _storage_errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except PoolTimeoutError as error:
            raise StoreBusyError(f"{shown(self.url)}: too many connections at once. Try again later.") from error
        except DATABASE_ERRORS as error:
            raise storage_error(self.url, error, action) from error
