"""Event loop with a virtual clock: a wait ends at once and advances the clock."""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any


class _Impatient(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now_s, self.threads = 0.0, 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or self.threads:  # the clock stands while threads and the network work
            return super().select(None if timeout is None or timeout > 0 else 0)
        ready = super().select(0)
        if not ready:
            self.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Starts at 0 s. Time passes only while no thread works for it."""

    def __init__(self) -> None:
        self._impatient = _Impatient()
        super().__init__(self._impatient)

    def time(self) -> float:
        return self._impatient.now_s

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        self._impatient.threads += 1
        future = super().run_in_executor(executor, function, *arguments)
        future.add_done_callback(self._end_one)
        return future

    def _end_one(self, future: object) -> None:
        self._impatient.threads -= 1
