"""Payloads of many requests in one segment: those that arrive while a segment is written go into the next one."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from cloud.store.inbox_request import InboxRequest
from cloud.store.segments import MOST_SEGMENT_BYTES, Segments
from shared.errors import StorageError


@dataclass(frozen=True, slots=True)
class _Waiting:
    request: InboxRequest
    done: "asyncio.Future[InboxRequest]"
    size: int


class SegmentQueue:
    """Writer of the payloads that leave their requests; used on the event loop only.

    It writes one segment at a time, so requests gather behind it.
    """

    def __init__(self, segments: Segments) -> None:
        self._segments = segments
        self._waiting: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None

    def place(self, request: InboxRequest) -> "asyncio.Future[InboxRequest]":
        """Return the request with the places of its payloads once these are durable; the future raises StorageError."""
        waiting = _Waiting(request, asyncio.get_running_loop().create_future(), _size(request))
        self._waiting.append(waiting)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return waiting.done

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._write(self._next_group())
        finally:
            self._task = None  # at once: the next request, which may come in this turn of the loop, starts another one

    def _next_group(self) -> list[_Waiting]:
        """Remove and return the requests of the next segment, in the order of their arrival."""
        size = count = 0
        for waiting in self._waiting:
            size += waiting.size
            if count and size > MOST_SEGMENT_BYTES:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    async def _write(self, group: Sequence[_Waiting]) -> None:
        try:
            values = [value for waiting in group for value in waiting.request.outside if value]
            places = iter(await self._segments.write(values))
        except StorageError as error:
            _fail(group, error)
        except BaseException as error:
            _fail(group, StorageError(f"The payloads were not stored ({type(error).__name__})."))
            raise
        else:
            for waiting in group:
                placed = waiting.request.placed(places)  # also of a cancelled one, whose places come before the others
                if not waiting.done.done():
                    waiting.done.set_result(placed)


def _size(request: InboxRequest) -> int:
    return sum(len(value.data) for value in request.outside if value)


def _fail(group: Sequence[_Waiting], error: StorageError) -> None:
    for waiting in group:
        if not waiting.done.done():
            waiting.done.set_exception(error)
