"""Thread for blocking work, which would stop the event loop."""

import asyncio
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """Daemon thread that calls one function at a time; on Linux with `niceness`, which its own threads inherit.

    Unlike an executor's thread, it does not delay the end of the process. An interrupted batch is not lost: its samples
    are still in the queue of the store.
    """

    def __init__(self, name: str, niceness: int = 0) -> None:
        self._niceness = niceness
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function in the thread; return its result or raise its exception."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                _resolve(loop, future, None, error)
            else:
                _resolve(loop, future, result, None)

        self._queue.put(work)
        return await future

    def stop(self, timeout_s: float) -> bool:
        """Stop the thread after its current call; return whether it ended within `timeout_s`."""
        self._queue.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        if self._niceness and sys.platform == "linux":  # where a thread has a priority of its own
            thread_id = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread_id, os.getpriority(os.PRIO_PROCESS, thread_id) + self._niceness)
        while (work := self._queue.get()) is not None:
            work()


def _resolve(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], result: Any, error: BaseException | None
) -> None:
    def set_outcome() -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    if not loop.is_closed():  # a closed loop means that the process is ending
        loop.call_soon_threadsafe(set_outcome)
