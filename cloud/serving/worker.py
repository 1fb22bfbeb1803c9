"""Thread for blocking work, which would stop the event loop."""

import asyncio
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from shared.errors import WorkerCrashedError
from shared.logs import EventLog

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

MAX_CRASHES = 2  # of one call
_LOG = EventLog("serving")


@dataclass
class _Call:
    """One call, and how often a thread ended in it. `run` returns its result; `finish` delivers result or error."""

    run: Callable[[], Any]
    finish: Callable[[Any, BaseException | None], None]
    is_cancelled: Callable[[], bool]
    crashes: int = 0


class Worker:
    """Daemon thread that calls one function at a time; on Linux with `niceness`, which its own threads inherit.

    Unlike an executor's thread, it does not delay the end of the process. An interrupted batch is not lost: its samples
    are still in the queue of the store.

    A function that ends its thread (SystemExit or another exception that is not an Exception) is called again on a new
    thread. After MAX_CRASHES the call raises WorkerCrashedError, and the thread goes on with the next one. `on_crash`
    is called at each crash, from the thread.
    """

    def __init__(self, name: str, niceness: int = 0, on_crash: Callable[[], None] = lambda: None) -> None:
        self._name, self._niceness, self._on_crash = name, niceness, on_crash
        self._queue: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._since_s: float | None = None
        self._start(None)

    @property
    def busy_s(self) -> float:
        """Seconds since the current call began, or last made progress; 0 without one."""
        since_s = self._since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def made_progress(self) -> None:
        """Note that the current call has done a part of its work; called from the thread."""
        self._since_s = time.monotonic()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function in the thread; return its result or raise its exception.

        Raises WorkerCrashedError if the function ended MAX_CRASHES threads.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def finish(result: Any, error: BaseException | None) -> None:
            _resolve(loop, future, result, error)

        self._queue.put(_Call(lambda: function(*args, **kwargs), finish, future.cancelled))
        return await future

    def stop(self, timeout_s: float) -> bool:
        """Stop the thread after its current call; return whether it ended within `timeout_s`."""
        self._queue.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _start(self, first: _Call | None) -> None:
        self._thread = threading.Thread(target=self._run, args=(first,), name=self._name, daemon=True)
        self._thread.start()

    def _run(self, first: _Call | None) -> None:
        self._set_priority()
        call = first or self._queue.get()
        while call is not None:
            if not call.is_cancelled():
                self.made_progress()
                has_answered = _answer(call)
                self._since_s = None
                if not has_answered:
                    self._restart(call)
                    return
            call = self._queue.get()

    def _restart(self, call: _Call) -> None:
        """Continue with the call on a new thread, or end the call if it has crashed too often."""
        call.crashes += 1
        _LOG.error("worker_crashed", worker=self._name, crashes=call.crashes)
        self._on_crash()
        if call.crashes < MAX_CRASHES:
            self._start(call)
            return
        call.finish(None, WorkerCrashedError(f"The {self._name} worker ended {call.crashes} times in the same call."))
        self._start(None)

    def _set_priority(self) -> None:
        if not self._niceness or sys.platform != "linux":  # elsewhere a thread has no priority of its own
            return
        thread_id = threading.get_native_id()
        try:
            os.setpriority(os.PRIO_PROCESS, thread_id, os.getpriority(os.PRIO_PROCESS, thread_id) + self._niceness)
        except OSError as error:  # a container may forbid it
            _LOG.warning("priority_not_set", worker=self._name, reason=str(error))


async def run_in_halves(
    worker: Worker,
    function: Callable[[Sequence[T]], list[R]],
    items: Sequence[T],
    on_crash: Callable[[T, Exception], R],
) -> list[R]:
    """Return the results of `function` for all items, in order, called on `worker`.

    Items that end the worker's thread again and again are halved until each such item is alone; its result is
    that of `on_crash`.
    """
    try:
        return await worker.run(function, items)
    except WorkerCrashedError as error:
        if len(items) == 1:
            return [on_crash(items[0], error)]
    middle = len(items) // 2
    halves = [await run_in_halves(worker, function, half, on_crash) for half in (items[:middle], items[middle:])]
    return halves[0] + halves[1]


def _answer(call: _Call) -> bool:
    """Make the call and deliver its result or its error; return false if it ended the thread."""
    try:
        result = call.run()
    except Exception as error:
        call.finish(None, error)
    except BaseException as error:
        _LOG.error("call_ended_thread", error=repr(error))
        return False
    else:
        call.finish(result, None)
    return True


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
