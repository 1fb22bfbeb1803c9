"""`vedette.v1.Detection.Watch`: streams of events for devices."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import grpc

from cloud.service.access import Access, Context, refuse, refuse_for_store
from cloud.service.event_messages import event_bytes
from cloud.service.event_notifier import EventNotifier
from cloud.service.metrics import Metrics
from cloud.store import Store
from cloud.store.events import events_after, newest_cursor
from shared.errors import StorageError
from vedette.v1 import detection_pb2

STORAGE_RETRY_MS = 2000
WATCH_PAGE = 64  # verdicts with their maps, up to a mebibyte each
CHECK_S = 1.0
T = TypeVar("T")


class WatchService:
    """Watch, and the check that ends streams whose device has lost its access."""

    def __init__(
        self,
        store: Store,
        access: Access,
        notifier: EventNotifier,
        metrics: Metrics,
        *,
        streams_per_device: int,
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._store = store
        self._access = access
        self._notifier = notifier
        self._streams_per_device = streams_per_device
        self._on_failure = on_failure
        metrics.watches.set_function(lambda: len(notifier.streams))

    async def Watch(self, request: detection_pb2.WatchRequest, context: Context) -> AsyncIterator[bytes]:
        """Stream the device's serialised events after the cursor, then new ones, until either side ends the call.

        Requests for live views are not stored: they come between the events, with the cursor of the one before.
        """
        used = await self._access.new_call(context)
        if len(self._notifier.streams_of(used.device_id)) >= self._streams_per_device:
            message = f"Device {used.device_id!r} has {self._streams_per_device} event streams open already."
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, message, retry_after_ms=STORAGE_RETRY_MS)
        with self._notifier.streaming(used, answers_live_views=request.answers_live_views) as stream:
            cursor = await self._start(context, request.cursor)
            while not self._notifier.closed:
                if stream.must_check:
                    stream.must_check = False
                    await self._access.device_id(context)
                for asked in stream.take_asked():
                    yield detection_pb2.Event(cursor=cursor, live_view_requested=asked).SerializeToString()
                if stream.must_read:
                    stream.begin_reading()
                    stored = await self._read(context, events_after(self._store, used.device_id, cursor, WATCH_PAGE))
                    stream.must_read |= len(stored) == WATCH_PAGE
                    page = [(event.cursor, event_bytes(event)) for event in stored]
                else:
                    page = stream.take()
                for event_cursor, data in page:
                    if event_cursor > cursor:  # not both read and pushed
                        cursor = event_cursor
                        if data:  # else its verdict was removed
                            yield data
                await stream.wait()
        await refuse(context, grpc.StatusCode.UNAVAILABLE, "The service is stopping: connect again.")

    async def run(self) -> None:
        """End streams of devices that were revoked or enrolled again, or whose certificate expired, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_S)
            try:
                lost = await self._access.lost({stream.certificate for stream in self._notifier.streams})
            except Exception as error:
                self._on_failure(error)
                continue
            for stream in self._notifier.streams if lost else ():
                if stream.certificate in lost:
                    stream.check_access()

    async def _start(self, context: Context, cursor: int) -> int:
        """Return where to start. A cursor beyond the newest is from another store: start at the first event."""
        newest = await self._read(context, newest_cursor(self._store))
        return cursor if cursor <= newest else 0

    async def _read(self, context: Context, reading: Awaitable[T]) -> T:
        try:
            return await reading
        except StorageError as error:
            await refuse_for_store(context, error, retry_after_ms=STORAGE_RETRY_MS)
