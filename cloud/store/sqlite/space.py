"""Space of a SQLite file: free pages go back to the disk in steps that block writers only briefly."""

from typing import TYPE_CHECKING

from shared.logs import EventLog
from shared.pacing import Pace

if TYPE_CHECKING:
    from cloud.store.sqlite.store import SqliteStore

INCREMENTAL = 2  # value of PRAGMA auto_vacuum of files that can return free pages
PAUSE_S = 0.02
FIRST_PAGES, MOST_PAGES = 64, 4096

_LOG = EventLog("retention")


async def return_space(store: "SqliteStore") -> int:
    """Return the free pages of the file to the disk and let the log start again; return the number of pages.

    A file that could not be converted keeps its size: new samples fill its free pages. Raises StorageError.
    """
    pace = Pace(store.step_s, FIRST_PAGES, MOST_PAGES)
    first = free = await _free_pages(store)
    while free:
        pace.measured(await store.give_back(pace.size))
        before, free = free, await _free_pages(store)
        if free >= before:  # new deletions are for the next run
            break
        await store.rest(PAUSE_S)
    restarted = await store.restart_log()
    if first:
        _LOG.info("disk_given_back", pages=first - free, longest_step_s=pace.longest_s, log_restarted=restarted)
    return first - free


async def _free_pages(store: "SqliteStore") -> int:
    """Return the number of free pages that the file can return."""
    async with store.reading() as connection:
        mode = (await connection.exec_driver_sql("PRAGMA auto_vacuum")).scalar_one()
        return (
            int((await connection.exec_driver_sql("PRAGMA freelist_count")).scalar_one()) if mode == INCREMENTAL else 0
        )
