"""Checkpoints of the write-ahead log, in a thread of their own.

SQLite copies the log into the file at the end of a transaction that made it long, and the writer waits for the disk.
Here a second connection copies it while writers go on. Only the pages written meanwhile are copied while
writers wait: the log then starts again at its beginning.
"""

import asyncio
import contextlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shared.logs import EventLog

EVERY_S = 0.25  # while transactions are committed; writers wait for the disk beside a long copy
RESTART_PAGES = 2048  # from this length on the log shall start again, with pages of 4 KiB 8 MiB
CLOSE_S = 5.0

_LOG = EventLog("store")


class Checkpoints:
    """Copier of the log of one file; used on the event loop only.

    `write_lock` is held by the writers of this process.
    """

    def __init__(self, path: Path, write_lock: asyncio.Lock) -> None:
        self._path, self._write_lock = path, write_lock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._connection: sqlite3.Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._asked, self._copying = False, asyncio.Lock()

    def wake(self) -> None:
        """Copy the log soon: a transaction was committed."""
        self._asked = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def copy_log(self) -> int:
        """Copy the log without stopping writers; return its length in pages. Raises sqlite3.Error."""
        return (await self._pragma("PASSIVE"))[1]

    async def restart(self) -> bool:
        """Copy the log, and let it start again at its beginning; return False if readers prevent it.

        Raises sqlite3.Error.
        """
        async with self._copying:
            await self.copy_log()  # leaves only what is written during a short copy
            async with self._write_lock:
                return not (await self._pragma("RESTART"))[0]

    async def keep_up(self) -> None:
        """Copy the log now; one who writes much waits for it, so that little is left to copy at once."""
        try:
            if await self.copy_log() >= RESTART_PAGES:
                await self.restart()
        except sqlite3.Error as error:  # such as a full disk, which writers find, too
            _LOG.warning("log_not_copied", path=self._path, error=error)

    async def close(self) -> None:
        """Stop copying."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=CLOSE_S)
            self._task = None
        await asyncio.to_thread(self._thread.submit(self._close).result)

    async def _run(self) -> None:
        while self._asked:
            self._asked = False
            await asyncio.sleep(EVERY_S)
            await self.keep_up()

    async def _pragma(self, mode: str) -> tuple[bool, int]:
        """Run a checkpoint; return whether readers or writers kept it from its end, and the pages of the log."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._checkpoint, mode)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            raise

    def _checkpoint(self, mode: str) -> tuple[bool, int]:
        if self._connection is None:
            uri = f"{self._path.absolute().as_uri()}?mode=rw"  # makes no file where it was removed
            # Waits neither for readers nor for other processes.
            self._connection = sqlite3.connect(uri, uri=True, timeout=0.0, isolation_level=None)
        is_busy, pages, _ = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        return bool(is_busy), int(pages)

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
