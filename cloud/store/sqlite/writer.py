"""Write transactions straight on SQLite's driver, in a thread of their own."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
STATEMENTS = 256  # kept prepared
POLL_S = 0.001  # between two attempts to take the write lock
_PRIMARY_CODE = 0xFF  # of SQLite's extended codes


class SqliteWriter:
    """One connection and its thread; the connection opens at the first transaction.

    SQLAlchemy's asynchronous engine changes threads for every statement, which costs more than many small statements.
    """

    def __init__(self, path: Path, settings: Mapping[str, str | int]) -> None:
        self._path, self._settings = path, settings
        self._busy_s = int(settings["busy_timeout"]) / 1000
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    async def transact(self, work: Callable[[sqlite3.Connection], T], before_commit: Callable[[], object]) -> T:
        """Call `work` and then `before_commit` as one durable transaction, rolled back if one of them raises.

        A cancelled caller waits for its end. Raises the errors of `sqlite3`.
        """
        return await self._in_thread(self._transact, work, before_commit)

    async def run(self, work: Callable[[sqlite3.Connection], T], after: Callable[[], object]) -> T:
        """Call `work`, whose first statement is a durable transaction, and then `after` in the event loop.

        The thread gives away the interpreter's lock in every statement and every call to the system, and waits for it
        afterwards: one statement instead of three, and `after` elsewhere.
        A cancelled caller waits for its end. Raises the errors of `sqlite3`.
        """
        result: T = await self._in_thread(self._run, work)
        after()
        return result

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        running = asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            raise

    def close(self) -> None:
        """Close the connection after the running transaction; a later one opens it again."""
        self._thread.submit(self._close).result()

    def _transact(self, work: Callable[[sqlite3.Connection], T], before_commit: Callable[[], object]) -> T:
        connection = self._connection = self._connection or self._open()
        self._when_free(lambda: connection.execute("BEGIN IMMEDIATE"))
        try:
            result = work(connection)
            before_commit()
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connection = self._connection or self._open()
        return self._when_free(lambda: work(connection))

    def _when_free(self, write: Callable[[], T]) -> T:
        """Return the result of a call that begins with taking SQLite's write lock, once another process gave it back.

        SQLite's own busy handler sleeps up to 100 ms between two attempts, however soon the lock is free.
        """
        until_s = time.monotonic() + self._busy_s
        while True:
            try:
                return write()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & _PRIMARY_CODE != sqlite3.SQLITE_BUSY or time.monotonic() > until_s:
                    raise
            time.sleep(POLL_S)

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, cached_statements=STATEMENTS)
        for name, value in self._settings.items():
            connection.execute(f"PRAGMA {name}={value}")
        connection.execute("PRAGMA busy_timeout=0")  # see _when_free
        return connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
