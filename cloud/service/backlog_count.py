"""Count of waiting samples where other processes store and judge them too."""

import asyncio
import time
from collections.abc import Callable

from cloud.service.admission import Admission
from cloud.service.event_notifier import EventNotifier
from cloud.store import Store
from cloud.store.judging import backlog
from shared.errors import StorageError

COUNT_EVERY_S = 1.0
MAX_LOAD = 0.05  # share of the time that counting may take


async def count_backlog(
    store: Store, admission: Admission, notifier: EventNotifier, on_failure: Callable[[Exception], None]
) -> None:
    """Correct the admission's backlog from the store until cancelled.

    In between it counts what this process stores. So the backlogs of a device and of all are those of all processes,
    one to a few seconds old.
    """
    written, started_s = notifier.newest, time.monotonic()
    pause_s = COUNT_EVERY_S
    while True:
        await asyncio.sleep(pause_s)
        before_s, started_s = started_s, time.monotonic()
        before, written = written, notifier.newest
        try:
            with admission.recounting() as recount:
                recount(await backlog(store), (written - before) / (started_s - before_s))
        except StorageError as error:
            on_failure(error)
        pause_s = max(COUNT_EVERY_S, (time.monotonic() - started_s) / MAX_LOAD)
