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
from cloud.store import Store
from cloud.store.events import StoredEvent, WrittenEvent, audiences_between, events_between, newest_cursor
from cloud.store.schema import ALL_DEVICES
from shared.samples import Verdict

POLL_S = 0.5
FOLLOW_EVERY_S = 0.03
MAX_FOLLOWED = 256  # events that are read at once and pushed; of more, each stream reads its own
MAX_PENDING = 64  # pushed events that a stream has not sent yet; a stream with more reads the store
MAX_PUSHED_CELLS = 2**14  # of a verdict's map; a stream reads larger ones when it can send them


class EventStream:
    """New events for one call of Watch.

    `must_read`: the store holds events that were not pushed. `must_check`: the device may have lost its access.
    """

    def __init__(self, certificate: ClientCertificate) -> None:
        self.certificate = certificate
        self.must_read = True
        self.must_check = False
        self._pending: deque[StoredEvent] = deque()
        self._woken = asyncio.Event()

    def push(self, event: StoredEvent) -> None:
        """Add an event that follows all earlier ones of the device."""
        if not self.must_read:  # else the stream finds it in the store
            self._pending.append(event)
            if len(self._pending) > MAX_PENDING or _is_large(event):
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

    def begin_reading(self) -> None:
        """Note that the store is read now; events that are pushed from here on may be on the page, too."""
        self.must_read = False
        self._pending.clear()

    def take(self) -> list[StoredEvent]:
        """Return the pushed events."""
        events = list(self._pending)
        self._pending.clear()
        return events

    async def wait(self) -> None:
        """Wait until there is something to do."""
        if not (self._pending or self.must_read or self.must_check):
            self._woken.clear()
            await self._woken.wait()


class EventNotifier:
    """Open streams by device, and the cursor up to which all events have reached them.

    Events of this process are pushed while no other process has written in between; otherwise the streams read.
    """

    def __init__(self, store: Store, on_failure: Callable[[Exception], None]) -> None:
        self._store = store
        self._on_failure = on_failure
        self._announced = asyncio.Event()
        self._streams: dict[str, set[EventStream]] = {}
        self.closed = False
        self.newest = 0

    @property
    def streams(self) -> list[EventStream]:
        """All open streams."""
        return [stream for streams in self._streams.values() for stream in streams]

    def number_of_streams(self, device_id: str) -> int:
        """Return how many streams a device has open."""
        return len(self._streams.get(device_id, ()))

    @contextlib.contextmanager
    def streaming(self, certificate: ClientCertificate) -> Iterator[EventStream]:
        """Open a stream, which starts by reading the store."""
        stream, device_id = EventStream(certificate), certificate.device_id
        self._streams.setdefault(device_id, set()).add(stream)
        try:
            yield stream
        finally:
            self._streams[device_id].discard(stream)
            if not self._streams[device_id]:
                del self._streams[device_id]

    def publish(self, written: Sequence[WrittenEvent]) -> None:
        """Push events that this process has written, in the order of their cursors."""
        cursors = [item.event.cursor for item in written]
        if cursors != list(range(self.newest + 1, self.newest + 1 + len(cursors))):
            self._announced.set()
            return
        self.newest += len(cursors)
        for item in written:
            self._push(item)

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
                await asyncio.wait_for(self._announced.wait(), POLL_S)
            await asyncio.sleep(started_s + FOLLOW_EVERY_S - time.monotonic())

    async def _follow(self) -> None:
        """Push the events of other processes to their streams, or let these read the store if they are many."""
        newest = await newest_cursor(self._store)
        if newest <= self.newest:
            return
        at_start = self.newest == 0
        after = self.newest
        audiences = {ALL_DEVICES} if at_start else await audiences_between(self._store, after, newest)
        if at_start or newest - after > MAX_FOLLOWED:
            self._wake(audiences)
        elif listening := audiences & {ALL_DEVICES, *self._streams}:
            # A stream that has its events already, because this process pushed them meanwhile, drops them.
            for item in await events_between(self._store, after, newest, listening):
                self._push(item)
        self.newest = max(self.newest, newest)

    def _push(self, item: WrittenEvent) -> None:
        for stream in self.streams if item.device_id == ALL_DEVICES else self._streams.get(item.device_id, ()):
            stream.push(item.event)

    def _wake(self, audiences: set[str]) -> None:
        for device_id in self._streams if ALL_DEVICES in audiences else audiences & self._streams.keys():
            for stream in self._streams[device_id]:
                stream.read_store()


def _is_large(event: StoredEvent) -> bool:
    verdict = event.content
    anomaly_map = verdict.anomaly_map if isinstance(verdict, Verdict) else None
    return anomaly_map is not None and anomaly_map.size > MAX_PUSHED_CELLS
