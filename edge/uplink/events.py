"""Event stream of the service: verdicts and bundle changes, resumed from a durable cursor, and live views."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence

import grpc

from edge.counters import Counters
from edge.disk import disk_error_text
from edge.operation.latency import LatencyHistogram
from edge.settings import UplinkSettings
from edge.uplink.link import LinkState, wait_to_retry
from edge.uplink.transport import Stream, Transport
from edge.uplink.verdicts import VerdictStore
from shared.backoff import HALF_JITTER, Backoff
from shared.clocks import MAX_LATENCY_S
from shared.errors import SampleRejected
from shared.logs import EventLog, Throttle
from shared.samples import Verdict
from shared.wire import verdict_from_message
from vedette.v1 import detection_pb2

_MAX_EVENTS_PER_COMMIT = 256
_QUIET_S = 0.02

log = EventLog("events")


class EventReader:
    """Follows the event stream. A job of the uplink."""

    def __init__(
        self,
        settings: UplinkSettings,
        verdicts: VerdictStore,
        counters: Counters,
        latency: LatencyHistogram,
        on_bundle_changed: Callable[[], None],
        on_verdicts: Callable[[Sequence[Verdict]], None] = lambda _: None,
        on_live_view: Callable[[detection_pb2.LiveViewRequested], None] = lambda _: None,
    ) -> None:
        """`on_verdicts` is called on another thread, with new verdicts once they are stored."""
        self._on_live_view = on_live_view
        self._verdicts, self._counters, self._latency = verdicts, counters, latency
        self._on_bundle_changed, self._on_verdicts = on_bundle_changed, on_verdicts
        self._backoff = Backoff(settings.backoff_initial_s, settings.backoff_max_s, jitter=HALF_JITTER)
        self._throttle = Throttle()

    async def run(self, transport: Transport, link: LinkState) -> None:
        """Follow events until cancelled; see `Job.run`."""
        while True:
            cursor = await asyncio.to_thread(lambda: self._verdicts.cursor)
            stream = transport.watch(cursor)
            try:
                await self._follow(stream, link)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.CANCELLED:
                    link.failed(error)
            except sqlite3.Error as error:
                if self._throttle.allow("not stored"):
                    text = disk_error_text(error, self._verdicts.path)
                    log.error("verdicts_not_stored", error=text, advice="free some space; they are read again")
            finally:
                stream.cancel()
            await wait_to_retry(self._backoff, link)

    async def _follow(self, stream: Stream[detection_pb2.Event], link: LinkState) -> None:
        """Read until the stream ends, and store events in batches whenever the stream pauses."""
        events: list[detection_pb2.Event] = []
        reading = asyncio.ensure_future(stream.read())
        try:
            while True:
                await asyncio.wait({reading}, timeout=_QUIET_S if events else None)
                if reading.done():
                    event = reading.result()
                    if event is None:
                        break
                    link.succeeded()
                    reading = asyncio.ensure_future(stream.read())
                    if event.WhichOneof("event") == "live_view_requested":
                        self._on_live_view(event.live_view_requested)  # at once; it is not stored
                        continue
                    events.append(event)
                    if len(events) < _MAX_EVENTS_PER_COMMIT:
                        continue
                await self._handle(events)
                events = []
                self._backoff.reset()  # not on arrival: while the disk refuses, events are read repeatedly
        finally:
            reading.cancel()
            if events:
                await self._handle(events)

    async def _handle(self, events: list[detection_pb2.Event]) -> None:
        if not events:
            return
        verdicts = [verdict for event in events if (verdict := self._verdict(event)) is not None]
        new = await asyncio.to_thread(self._verdicts.store, verdicts, events[-1].cursor)
        # Totals, not sums: after a loss of the table all verdicts are read again and would count twice.
        self._counters.raise_to(self._verdicts.totals())
        if new:
            await asyncio.to_thread(self._on_verdicts, new)
        now_ms = time.time() * 1000
        for verdict in new:  # the id contains the time of routing in ms
            latency_ms = now_ms - (verdict.sample_id.int >> 80)
            if 0 <= latency_ms <= MAX_LATENCY_S * 1000:  # otherwise the clock was set meanwhile
                self._latency.record(latency_ms)
        if any(event.WhichOneof("event") == "bundle_changed" for event in events):
            self._on_bundle_changed()

    def _verdict(self, event: detection_pb2.Event) -> Verdict | None:
        if event.WhichOneof("event") != "verdict":
            return None
        try:
            return verdict_from_message(event.verdict)
        except SampleRejected as error:
            if self._throttle.allow("malformed"):
                log.warning("verdict_malformed", cursor=event.cursor, reason=error)
            return None
