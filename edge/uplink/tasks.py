"""Functions to wait for events and to end tasks without losing a cancellation.

asyncio.wait_for of Python 3.11 swallows a cancellation that comes right after what it waited for: the task goes on.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

_ASK_AGAIN_S = 1.0


async def happens(event: asyncio.Event, within_s: float) -> bool:
    """Wait for an event for at most `within_s` seconds; returns whether it happened."""
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def end(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel tasks until all have ended, with or without an error."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=_ASK_AGAIN_S)
        for task in done:
            if not task.cancelled():
                task.exception()  # retrieved, else asyncio logs it
