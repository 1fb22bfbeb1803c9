"""Brings new events to the streams of devices: pushed as soon as this process or another has written them.

A stream that only listens costs nothing: no query and no timer. One task follows the store for events of other
processes, for all streams.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from cloud.service.access import ClientCertificate
from cloud.service.event_messages import PushedEvent, pushed_events
from cloud.store import Store
from cloud.store.events import audiences_between, events_between, newest_cursor
from cloud.store.schema import ALL_DEVICES
from vedette.v1 import detection_pb2

POLL_S = 0.5
PUSH_S = 0.2  # for events of the own analysis to be pushed after they were stored
FOLLOW_EVERY_S = 0.03
MAX_FOLLOWED = 256  # events that are read at once and pushed; of more, each stream reads its own
MAX_ASKED = 4  # live views
MAX_PENDING = 64  # pushed events that a stream has not sent yet; a stream with more reads the store


class EventStream:
    """New events for one call of Watch, and requests for live views if its device `answers_live_views`.

    `must_read`: the store holds events that were not pushed. `must_check`: the device may have lost its access.
    """

    def __init__(self, certificate: ClientCertificate, *, answers_live_views: bool = False) -> None:
        self.certificate, self.answers_live_views = certificate, answers_live_views
        self._asked: deque[tuple[float, detection_pb2.LiveViewRequested]] = deque(maxlen=MAX_ASKED)
        self.must_read = True
        self.must_check = False
        self._pending: deque[tuple[int, bytes]] = deque()
        self._woken = asyncio.Event()

    def push(self, cursor: int, data: bytes) -> None:
        """Add a serialised event that follows all earlier ones of the device; one without data is read instead."""
        if not self.must_read:  # else the stream finds it in the store
            self._pending.append((cursor, data))
            if len(self._pending) > MAX_PENDING or not data:
                self.must_read = True
        self._woken.set()

    def read_store(self) -> None:
        """Let the stream read the store, because another process wrote events."""
        self.must_read = True
        self._woken.set()

    def check_access(self) -> None:
        """Let the stream check the access of its device."""
        self.must_check = True
        self._woken.set()

    def ask(self, request: detection_pb2.LiveViewRequested, until_s: float) -> None:
        """Ask the device for a live view, unless it is later than `until_s` of the monotonic clock.

        The oldest of more than MAX_ASKED is dropped.
        """
        self._asked.append((until_s, request))
        self._woken.set()

    def take_asked(self) -> list[detection_pb2.LiveViewRequested]:
        """Return the requests for live views that the device has not got yet, and that can still be answered."""
        now_s = time.monotonic()
        asked = [request for until_s, request in self._asked if until_s >= now_s]
        self._asked.clear()
        return asked

    def begin_reading(self) -> None:
        """Note that the store is read now; events that are pushed from here on may be on the page, too."""
        self.must_read = False
        self._pending.clear()

    def take(self) -> list[tuple[int, bytes]]:
        """Return the pushed events: cursor and data of each."""
        events = list(self._pending)
        self._pending.clear()
        return events

    async def wait(self) -> None:
        """Wait until there is something to do."""
        if not (self._pending or self._asked or self.must_read or self.must_check):
            self._woken.clear()
            await self._woken.wait()


class EventNotifier:
    """Open streams by device, and the cursor up to which all events have reached them.

    Events of the own analysis are pushed while no other process has written in between; otherwise the streams read.
    `is_pushed`: there is an analysis of its own, whose events follow their commit within PUSH_S.
    """

    def __init__(self, store: Store, on_failure: Callable[[Exception], None], *, is_pushed: bool = True) -> None:
        self._store, self._is_pushed = store, is_pushed
        self._looked_at = 0  # newest cursor at the last look into the store
        self._on_failure = on_failure
        self._announced = asyncio.Event()
        self._streams: dict[str, set[EventStream]] = {}
        self.closed = False
        self.newest = 0

    @property
    def streams(self) -> list[EventStream]:
        """All open streams."""
        return [stream for streams in self._streams.values() for stream in streams]

    def streams_of(self, device_id: str) -> list[EventStream]:
        """Return the open streams of a device."""
        return list(self._streams.get(device_id, ()))

    @contextlib.contextmanager
    def streaming(self, certificate: ClientCertificate, *, answers_live_views: bool = False) -> Iterator[EventStream]:
        """Open a stream, which starts by reading the store."""
        stream = EventStream(certificate, answers_live_views=answers_live_views)
        device_id = certificate.device_id
        self._streams.setdefault(device_id, set()).add(stream)
        try:
            yield stream
        finally:
            self._streams[device_id].discard(stream)
            if not self._streams[device_id]:
                del self._streams[device_id]

    def publish(self, events: Sequence[PushedEvent]) -> None:
        """Push events that the own analysis has written, in the order of their cursors."""
        new = [event for event in events if event.cursor > self.newest]  # others were found in the store
        if [event.cursor for event in new] != list(range(self.newest + 1, self.newest + 1 + len(new))):
            self._announced.set()
            return
        self.newest += len(new)
        for event in new:
            self._push(event)

    def follow_soon(self) -> None:
        """Look for events of other processes, because one has committed."""
        self._announced.set()

    def close(self) -> None:
        """Wake all streams so that they end."""
        self.closed = True
        self._wake({ALL_DEVICES})

    async def run(self) -> None:
        """Follow the store until cancelled."""
        while True:
            self._announced.clear()
            started_s = time.monotonic()
            try:
                await self._follow()
            except Exception as error:  # any failed query: the next one may succeed, and streams depend on it
                self._on_failure(error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._announced.wait(), PUSH_S if self._looked_at > self.newest else POLL_S)
            await asyncio.sleep(started_s + FOLLOW_EVERY_S - time.monotonic())

    async def _follow(self) -> None:
        """Push the events of other processes to their streams, or let these read the store if they are many."""
        seen_before, newest = self._looked_at, await newest_cursor(self._store)
        self._looked_at = newest
        at_start, after = self.newest == 0, self.newest
        if self._is_pushed and not at_start:
            newest = min(newest, seen_before)  # newer ones are perhaps pushed in a moment
        if newest <= after:
            return
        audiences = {ALL_DEVICES} if at_start else await audiences_between(self._store, after, newest)
        if at_start or newest - after > MAX_FOLLOWED:
            self._wake(audiences)
        elif listening := audiences & {ALL_DEVICES, *self._streams}:
            # A stream that has its events already, because they were pushed meanwhile, drops them.
            for event in pushed_events(await events_between(self._store, after, newest, listening)):
                self._push(event)
        self.newest = max(self.newest, newest)

    def _push(self, event: PushedEvent) -> None:
        is_for_all = event.device_id == ALL_DEVICES
        for stream in self.streams if is_for_all else self._streams.get(event.device_id, ()):
            stream.push(event.cursor, event.data)

    def _wake(self, audiences: set[str]) -> None:
        for device_id in self._streams if ALL_DEVICES in audiences else audiences & self._streams.keys():
            for stream in self._streams[device_id]:
                stream.read_store()
