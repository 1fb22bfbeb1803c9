"""Count of waiting samples in the store: other processes store and judge them too, and a sum of changes may drift."""

import asyncio
import time
from collections.abc import Callable

from cloud.service.admission import Admission
from cloud.store import Store
from cloud.store.judging import backlog
from shared.errors import StorageError

COUNT_EVERY_S, COUNT_ALONE_EVERY_S = 1.0, 30.0  # beside other processes, and in a process that alone does the work
MAX_LOAD = 0.05  # share of the time that counting may take


async def count_backlog(
    store: Store, admission: Admission, on_failure: Callable[[Exception], None], verdicts: Callable[[], int] | None
) -> None:
    """Correct the admission's backlog from the store until cancelled.

    `verdicts` returns the number of verdicts of all processes so far; None: this process alone stores and judges.
    Between two counts the admission adds and subtracts what this process does. So the backlogs of a device and of all
    are those of all processes, one to a few seconds old; in a process that works alone, a fault in its sums ends.
    """
    every_s = COUNT_EVERY_S if verdicts else COUNT_ALONE_EVERY_S
    written, started_s, pause_s = verdicts() if verdicts else 0, time.monotonic(), every_s
    while True:
        await asyncio.sleep(pause_s)
        before_s, started_s = started_s, time.monotonic()
        rate = None
        if verdicts:
            before, written = written, verdicts()
            rate = (written - before) / (started_s - before_s)
        try:
            with admission.recounting() as recount:
                recount(await backlog(store), rate)
        except StorageError as error:
            on_failure(error)
        pause_s = max(every_s, (time.monotonic() - started_s) / MAX_LOAD)
