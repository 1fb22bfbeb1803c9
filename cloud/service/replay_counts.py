"""Counts for the replay of settings follow the verdicts while this process leads; outcomes of changes are noted."""

import asyncio
import time
from collections.abc import Callable

from cloud.store import Store
from cloud.store.replay.builder import count_verdicts, forget_old
from cloud.store.replay.outcomes import note_outcomes
from shared.errors import StorageError
from shared.logs import EventLog

FOLLOW_EVERY_S = 5.0
OUTCOMES_EVERY_S = 600.0
_LOG = EventLog("replay")


async def run_replay_counts(store: Store, on_failure: Callable[[Exception], None]) -> None:
    """Count new verdicts, forget old counts and note outcomes of changes, until cancelled."""
    next_outcomes_s = 0.0
    while True:
        try:
            if counted := await count_verdicts(store):
                _LOG.debug("verdicts_counted", verdicts=counted)
            if time.monotonic() >= next_outcomes_s:
                next_outcomes_s = time.monotonic() + OUTCOMES_EVERY_S
                await note_outcomes(store, time.time())
                await forget_old(store, time.time())
        except StorageError as error:
            on_failure(error)
        await asyncio.sleep(FOLLOW_EVERY_S)
