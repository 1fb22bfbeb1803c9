"""Store in a SQLite file beside the service.

Readers and the writer have separate connections, which WAL lets work at the same time. A write transaction takes the
lock at its start (BEGIN IMMEDIATE), so another process cannot make it fail half-way. Inside one process, writers queue
in asyncio instead of polling for the lock.
"""

import asyncio
import contextlib
import math
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from cloud.store.engine import Store, check_told
from cloud.store.inbox_request import Doubles, InboxRequest, Owners
from cloud.store.read_queue import DEVICE_READS, Deadline, ReadLimits, ReadQueue
from cloud.store.sqlite.checkpoints import Checkpoints
from cloud.store.sqlite.ingest import MAX_REQUESTS, insert_requests, unpack
from cloud.store.sqlite.judging import insert_verdicts
from cloud.store.sqlite.space import return_space
from cloud.store.sqlite.writer import SqliteWriter
from cloud.store.verdict_rows import NewVerdict, WrittenVerdicts
from shared.errors import RefusedRowError, StorageError, StoreBusyError

T = TypeVar("T")
DATABASE_FILE = "vedette.sqlite"
BUSY_TIMEOUT_MS = 10_000
JOURNAL_ATTEMPTS, JOURNAL_WAIT_S = 100, 0.02
PROGRESS_STEPS = 20_000  # of SQLite's virtual machine, about a millisecond
# The log is cut to this size when SQLite starts it again. It usually stays shorter: a commit that makes the file longer
# waits for the journal of the file system, and so for the writes of other programs.
WAL_BYTES = 16 * 2**20
WAL_MOST_PAGES = 16_384  # a writer copies a log of this length itself, see cloud.store.sqlite.checkpoints


class SqliteStore(Store):
    """Store in the file `vedette.sqlite` of a data directory."""

    step_s = 0.01  # all others wait

    def __init__(
        self, data_dir: Path, reads: ReadLimits = DEVICE_READS, *, actor: str = "", segments_url: str = ""
    ) -> None:
        super().__init__(actor, segments_url)
        self.path = data_dir / DATABASE_FILE
        self._write_lock = asyncio.Lock()
        self._callbacks: list[Callable[[bytes], None]] = []
        self._file: tuple[int, int] | None = None
        self._read_queue = ReadQueue(reads)
        self._stopped = asyncio.Event()
        self._watcher: sqlite3.Connection | None = None  # PRAGMA data_version compares within one connection
        self._reader = _engine(self.path, {"query_only": "ON"}, pool_size=reads.connections, begin="BEGIN")
        self._writer = _engine(self.path, {}, pool_size=1, begin="BEGIN IMMEDIATE")
        # Its commits stay in order, and do not wait for the disk.
        self._deleter = _engine(self.path, {"synchronous": "NORMAL"}, pool_size=1, begin="BEGIN IMMEDIATE")
        self._direct = SqliteWriter(self.path, connection_settings())
        self._checkpoints = Checkpoints(self.path, self._write_lock)
        event.listen(self._reader.sync_engine, "connect", self._watch_deadline)

    def version(self) -> int:
        """Return SQLite's number of the file's version. Raises StorageError."""
        with self._storage_errors("read"):
            if self._watcher is None:
                self._watcher = sqlite3.connect(self.path, timeout=0.1, isolation_level=None)
            return int(self._watcher.execute("PRAGMA data_version").fetchone()[0])

    def stop_reading(self) -> None:
        """Interrupt queries that run for long, now and later, so that their connections can be closed."""
        self._stopped.set()

    async def close(self) -> None:
        """Close all connections."""
        self.stop_reading()
        self.segments.close()
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
        await self._checkpoints.close()
        await asyncio.to_thread(self._direct.close)
        await self._reader.dispose()
        await self._writer.dispose()
        await self._deleter.dispose()

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Return a connection in a read transaction; the progress handler interrupts queries at the deadline."""
        with self._storage_errors("read"):
            async with self._read_queue.turn() as until_s, self._reader.begin() as connection:
                deadline = (await connection.get_raw_connection()).info["deadline"]
                deadline.at_s = until_s
                try:
                    yield connection
                finally:
                    deadline.at_s = math.inf

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Run the block as one transaction that holds SQLite's write lock from its start."""
        async with self._transaction(self._writer) as connection:
            yield connection

    def deleting(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Run the block as `writing` does, but leave the log to the next commit of others, or to `rest`."""
        return self._transaction(self._deleter)

    @contextlib.asynccontextmanager
    async def _transaction(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        with self._storage_errors("written"):
            async with self._write_lock, engine.begin() as connection:
                self._file = self._file or _file_of(self.path)
                yield connection
                self._check_file()
        self._checkpoints.wake()

    def appending(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Run the block as `writing` does: SQLite has one writer."""
        return self.writing()

    async def append_requests(self, requests: Sequence[InboxRequest]) -> list[Owners | None]:
        """Insert the requests in one statement, which is a transaction by itself, or in a transaction of several."""
        run = self._direct.run if len(requests) <= MAX_REQUESTS else self._direct.transact
        return await self._directly(run, lambda driver: insert_requests(driver, requests))

    async def unpack(self, numbers: Sequence[int]) -> list[Doubles]:
        """Insert the samples in a few statements of the driver."""
        return await self.write_directly(lambda driver: unpack(driver, numbers)) if numbers else []

    async def add_verdicts(self, rows: Sequence[NewVerdict]) -> WrittenVerdicts:
        """Insert the rows in a few statements of the driver."""
        return await self.write_directly(lambda driver: insert_verdicts(driver, rows))

    async def write_directly(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Call `work` with a connection of the driver as one transaction, in a thread of its own; return its result.

        Like `writing`, without its cost for each statement. Raises StorageError.
        """
        return await self._directly(self._direct.transact, work)

    async def _directly(
        self,
        run: Callable[[Callable[[sqlite3.Connection], T], Callable[[], object]], Coroutine[Any, Any, T]],
        work: Callable[[sqlite3.Connection], T],
    ) -> T:
        with self._storage_errors("written"):
            async with self._write_lock:
                self._file = self._file or _file_of(self.path)
                try:
                    result = await run(work, self._check_file)
                except (
                    OverflowError,
                    UnicodeEncodeError,
                ) as error:  # of the driver, which gives them no class of its own
                    raise RefusedRowError(f"{self.path}: does not take a value ({error}).") from error
        self._checkpoints.wake()
        return result

    async def make_durable(self, connection: AsyncConnection) -> None:
        """Change the user version, for which Vedette has no other use: SQLite commits nothing without a change."""
        await connection.exec_driver_sql(f"PRAGMA user_version = {int(time.time()) % 2**31}")

    def call_on_change(self, callback: Callable[[], None]) -> None:
        """Do nothing: one service alone serves the file, and its processes wake one another."""

    async def tell(self, message: bytes) -> None:
        """Call the callbacks of this process: one service alone serves the file."""
        check_told(message)
        for callback in self._callbacks:
            callback(message)

    def call_on_message(self, callback: Callable[[bytes], None]) -> None:
        """Call `callback` with each message of this process."""
        self._callbacks.append(callback)

    @contextlib.asynccontextmanager
    async def leading(self) -> AsyncIterator[asyncio.Future[None]]:
        """Lead at once: one service alone serves the file."""
        yield asyncio.get_running_loop().create_future()

    async def make_room(self) -> None:
        """Do nothing: the file grows with its rows."""

    async def drop_expired(self, limits: Mapping[str, float]) -> dict[str, int]:
        """Drop nothing: SQLite has no partitions."""
        return {}

    async def rest(self, pause_s: float) -> None:
        """Copy the log before the next step: a long one would delay the commits of others."""
        await self._checkpoints.keep_up()
        await asyncio.sleep(pause_s)

    async def return_space(self) -> None:
        """Return the free pages of the file to the disk, and copy the write-ahead log. Raises StorageError."""
        await return_space(self)

    async def copy_to(self, folder: Path) -> None:
        """Copy the file by SQLite's online backup, in one step that reads one view of the log."""
        with self._storage_errors("copied"):
            await asyncio.to_thread(_copy, self.path, folder / DATABASE_FILE)

    async def give_back(self, pages: int) -> float:
        """Return up to `pages` free pages to the disk; return the seconds that writers waited. Raises StorageError."""
        # Not execute(): Python's driver would stop after the first page.
        async with self._outside_transaction() as connection:
            started_s = time.perf_counter()
            await connection.executescript(f"PRAGMA incremental_vacuum({pages})")
            took_s = time.perf_counter() - started_s
        self._checkpoints.wake()
        return took_s

    async def restart_log(self) -> bool:
        """Copy the write-ahead log into the file, so that it starts again; return False if readers prevent it.

        Its file keeps its size: on some file systems a commit that makes it longer waits long. Does not wait for
        readers, because writers wait meanwhile. Raises StorageError.
        """
        with self._storage_errors("compacted"):
            return await self._checkpoints.restart()

    @contextlib.asynccontextmanager
    async def _outside_transaction(self) -> AsyncIterator[Any]:
        """Return the driver's connection of the deleter outside any transaction."""
        with self._storage_errors("compacted"):
            async with self._write_lock, self._deleter.connect() as connection:
                yield (await connection.get_raw_connection()).driver_connection

    def _check_file(self) -> None:
        """Raise StorageError if a commit would go into a file that no one can open."""
        if _file_of(self.path) != self._file:
            raise StorageError("The file of the store was removed or replaced: restart the service.")

    def _watch_deadline(self, connection: Any, record: Any) -> None:
        """Let SQLite ask regularly whether the running query of a new connection must end."""
        deadline = record.info["deadline"] = Deadline(self._stopped)
        connection.run_async(lambda driver: driver.set_progress_handler(deadline.is_over, PROGRESS_STEPS))

    @contextlib.contextmanager
    def _storage_errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except PoolTimeoutError as error:
            raise StoreBusyError(f"{self.path}: too many readers at once. Try again later.") from error
        except (DBAPIError, sqlite3.Error) as error:
            reason = error.orig if isinstance(error, DBAPIError) else error
            if str(reason) == "interrupted":
                raise StoreBusyError("The query took too long: try again, or restrict it.") from error
            if str(reason) == "database is locked":
                raise StoreBusyError(f"{self.path}: locked by another process. Try again later.") from error
            if "no such table" in str(reason):
                raise StorageError(f"{self.path}: holds no tables. Run: vedette cloud migrate.") from error
            if _is_refused_row(reason):
                raise RefusedRowError(f"{self.path}: does not take a row ({reason}).") from error
            raise StorageError(
                f"{self.path}: cannot be {action} ({reason}). Check the disk's free space and the file's owner."
            ) from error


def _is_refused_row(error: object) -> bool:
    """Return whether an error is about the values of a row; a trigger may refuse a row for another reason."""
    if isinstance(error, sqlite3.ProgrammingError):
        return str(error).startswith("Error binding parameter")  # of a type that SQLite does not know
    if not isinstance(error, (sqlite3.IntegrityError, sqlite3.DataError)):
        return False
    return getattr(error, "sqlite_errorname", "") != "SQLITE_CONSTRAINT_TRIGGER"


def _file_of(path: Path) -> tuple[int, int] | None:
    """Return the identity of a file; None if there is none."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _copy(source: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as reader,
        contextlib.closing(sqlite3.connect(target)) as writer,
    ):
        reader.backup(writer)


def _engine(path: Path, pragmas: dict[str, str], *, pool_size: int, begin: str) -> AsyncEngine:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}", poolclass=AsyncAdaptedQueuePool, pool_size=pool_size, max_overflow=0
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _connect(connection: Any, _: object) -> None:
        connection.isolation_level = None  # no implicit transactions of the driver: they begin below
        cursor = connection.cursor()
        for name, value in (connection_settings() | pragmas).items():
            _set_pragma(cursor, name, value)
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _set_pragma(cursor: Any, name: str, value: str | int) -> None:
    """Set a PRAGMA; SQLite does not wait by itself while another connection changes the journal of the file."""
    for attempts_left in reversed(range(JOURNAL_ATTEMPTS)):
        try:
            cursor.execute(f"PRAGMA {name}={value}")
            return
        except sqlite3.OperationalError as error:
            if str(error) != "database is locked" or not attempts_left:
                raise
            time.sleep(JOURNAL_WAIT_S)


def connection_settings() -> dict[str, str | int]:
    """Return the PRAGMAs of every connection; synchronous=FULL lets acknowledged samples survive a power cut."""
    return {
        "busy_timeout": BUSY_TIMEOUT_MS,
        "journal_mode": "WAL",
        "synchronous": "FULL",
        "foreign_keys": "ON",
        "cache_size": -16_000,  # KiB
        "journal_size_limit": WAL_BYTES,
        "wal_autocheckpoint": WAL_MOST_PAGES,
    }
