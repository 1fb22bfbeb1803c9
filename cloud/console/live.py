"""Stream of changes for open pages: one server-sent stream a page, fed by one shared tick.

The messages are `clock` (time of the service, and the problem if it cannot read the store) with each tick, `figures`
(strip of the fleet) after a change of the store, and `changed` with a topic and its number. Each message is rendered
once for all pages. A stream that is slow skips ticks, so its memory is bounded.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cloud.console.guidance import BundleProblems
from cloud.console.problems import problem_words
from cloud.console.rendering import render
from cloud.console.snapshots import Snapshot, Snapshots

TICK_S = 1.0
PATIENCE_S = 0.4  # a store that answers later is shown with the next tick
FIGURES, REVIEW, STORE, VERDICTS = "figures", "review", "store", "verdicts"
TOPICS = frozenset({FIGURES, REVIEW, STORE, VERDICTS})
_RETRY = b"retry: 1000\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # a proxy passes messages on at once
]

Numbers: TypeAlias = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class LiveState:
    """State that every page shows; the `numbers` of the topics grow with each change, also over restarts."""

    now_s: float
    problem: str
    numbers: Numbers
    strip: str

    @property
    def by_topic(self) -> dict[str, int]:
        """Number of each topic."""
        return dict(self.numbers)


class LiveFeed:
    """Newest state for pages, and the streams that follow it while there are any."""

    def __init__(self, snapshots: Snapshots, bundle_problems: BundleProblems) -> None:
        self._snapshots, self._bundle_problems = snapshots, bundle_problems
        self._first_number = int(time.time()) * 1000
        self._snapshot: Snapshot | None = None
        self._verdicts: tuple[object, int] = (None, self._first_number)
        self._strip = (0, render("strip.html", summary=None))
        self._state = LiveState(0.0, "", (), "")
        self._tick = asyncio.Event()
        self._rendered: dict[tuple[LiveState, Numbers, frozenset[str]], bytes] = {}
        self._streams = 0
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no page follows the feed."""
        return not self._streams

    async def state(self) -> LiveState:
        """Return the newest state; a failure of the store is its problem, beside the last figures."""
        problem = ""
        try:
            self._snapshot = await self._snapshots.newest()
        except Exception as error:
            problem = problem_words(error)
        return LiveState(time.time(), problem, self._numbers(), self._newest_strip())

    async def messages(self, topics: frozenset[str]) -> AsyncGenerator[bytes, None]:
        """Yield what changed, at once and with each tick, until the feed is closed."""
        seen: Numbers = ()
        self._streams += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        try:
            yield _RETRY
            state = await self.state()
            while not self._closed:
                tick = self._tick
                yield self._message(state, seen, topics)
                seen = state.numbers
                await tick.wait()
                state = self._state
        finally:
            self._streams -= 1

    async def close(self) -> None:
        """End all streams."""
        self._closed = True
        self._tick.set()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        reading: asyncio.Task[LiveState] | None = None
        self._state = await self.state()
        while self._streams and not self._closed:
            await asyncio.sleep(TICK_S)
            reading = reading or asyncio.create_task(self.state())
            await asyncio.wait({reading}, timeout=PATIENCE_S)
            if reading.done():
                self._state, reading = reading.result(), None
            else:
                self._state = replace(self._state, now_s=time.time())
            self._rendered.clear()
            tick, self._tick = self._tick, asyncio.Event()
            tick.set()

    def _numbers(self) -> Numbers:
        snapshot = self._snapshot
        if snapshot is not None:
            mark = (snapshot.summary.newest, snapshot.summary.devices, tuple(sorted(self._bundle_problems().items())))
            if mark != self._verdicts[0]:
                self._verdicts = mark, self._verdicts[1] + 1
        store = self._first_number + (snapshot.number if snapshot is not None else 0)
        review = self._first_number + (snapshot.review if snapshot is not None else 0)
        return ((FIGURES, store), (REVIEW, review), (STORE, store), (VERDICTS, self._verdicts[1]))

    def _newest_strip(self) -> str:
        snapshot = self._snapshot
        if snapshot is not None and snapshot.number != self._strip[0]:
            self._strip = snapshot.number, render("strip.html", summary=snapshot.view)
        return self._strip[1]

    def _message(self, state: LiveState, seen: Numbers, topics: frozenset[str]) -> bytes:
        key = state, seen, topics
        if (known := self._rendered.get(key)) is None:
            known = self._rendered[key] = _render(state, dict(seen), topics)
        return known


class LiveStream(Response):
    """Answer that stays open and carries the messages of a feed."""

    def __init__(self, feed: LiveFeed, topics: frozenset[str]) -> None:
        super().__init__()
        self._feed, self._topics = feed, topics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send messages until the browser leaves or the service ends."""
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        tasks = {asyncio.create_task(self._write(send)), asyncio.create_task(_left(receive))}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, send: Send) -> None:
        async with contextlib.aclosing(self._feed.messages(self._topics)) as messages:
            async for message in messages:
                await send({"type": "http.response.body", "body": message, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _left(receive: Receive) -> None:
    """Return when the browser has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _render(state: LiveState, seen: dict[str, int], topics: frozenset[str]) -> bytes:
    parts = [_event("clock", {"now_s": round(state.now_s, 3), "problem": state.problem})]
    for topic, number in state.numbers:
        if seen.get(topic) == number or topic not in topics:
            continue
        if topic == FIGURES:
            parts.append(_event("figures", {"number": number, "html": state.strip}))
        else:
            parts.append(_event("changed", {"topic": topic, "number": number}))
    return b"".join(parts)


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
