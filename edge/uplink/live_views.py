"""Answers to live views: the newest sample of a source for a person, within the limits that the device sets."""

import asyncio
from collections.abc import Callable, Mapping

import grpc

from edge.counters import Counters
from edge.settings import LiveViewSettings
from edge.token_bucket import TokenBucket
from edge.uplink.link import LinkState
from edge.uplink.transport import Transport
from shared.errors import SampleRejected
from shared.live_views import NewestSample, live_sample
from shared.logs import EventLog, Throttle
from vedette.v1 import detection_pb2, fleet_pb2

BURST_S = 10.0
MAX_WAITING = 4
ANSWER_S = 5.0  # nobody waits longer
MAX_NAME_CHARACTERS = 128

log = EventLog("live_view")

Refusal = fleet_pb2.LiveViewRefusal
_WORDS = {
    fleet_pb2.LIVE_VIEW_REFUSAL_NOT_PERMITTED: "not permitted by the settings",
    fleet_pb2.LIVE_VIEW_REFUSAL_NO_SAMPLE: "no sample yet",
    fleet_pb2.LIVE_VIEW_REFUSAL_UNKNOWN_SOURCE: "no such source",
    fleet_pb2.LIVE_VIEW_REFUSAL_TOO_OFTEN: "beyond live_view.max_per_minute",
    fleet_pb2.LIVE_VIEW_REFUSAL_NOT_SHOWABLE: "too large to be shown",
}


class LiveViews:
    """Answers requests one by one. A job of the uplink; `ask` and `run` belong to its loop.

    `permitted`: the settings allow live views. `newest`: the newest sample of each source, None before the first one.
    `last_viewer`: name of the person or API token that saw the last sample.
    """

    def __init__(
        self,
        settings: LiveViewSettings,
        newest: Mapping[str, Callable[[], NewestSample | None]],
        counters: Counters,
        *,
        permitted: bool,
    ) -> None:
        self._newest, self._counters, self._permitted = newest, counters, permitted
        self._bucket = TokenBucket(settings.max_per_minute / 60, BURST_S)
        self._waiting: asyncio.Queue[detection_pb2.LiveViewRequested] = asyncio.Queue(MAX_WAITING)
        self._throttle = Throttle()
        self.last_viewer = ""

    def ask(self, request: detection_pb2.LiveViewRequested) -> None:
        """Answer a request soon; beyond MAX_WAITING it is dropped, and the person gets no answer."""
        if self._waiting.full():
            if count := self._throttle.allow("full"):
                log.warning("live_view_dropped", source=request.source_id[:MAX_NAME_CHARACTERS], count=count)
            return
        self._waiting.put_nowait(request)

    async def run(self, transport: Transport, link: LinkState) -> None:
        """Answer requests until cancelled; see `Job.run`."""
        while True:
            request = await self._waiting.get()
            answer = fleet_pb2.AnswerLiveViewRequest(request_id=request.request_id)
            refusal = await self._show(request, answer)
            if refusal:
                answer.refusal = refusal
            self._note(request, refusal)
            try:
                await transport.answer_live_view(answer, ANSWER_S)
            except grpc.aio.AioRpcError as error:  # nothing is lost: the person can ask again
                if count := self._throttle.allow("undelivered"):
                    log.warning("live_view_not_delivered", code=error.code().name, error=error.details(), count=count)

    async def _show(self, request: detection_pb2.LiveViewRequested, answer: fleet_pb2.AnswerLiveViewRequest) -> Refusal:
        """Put the sample into the answer; return the refusal if it is not shown, else 0."""
        if not self._permitted:
            return fleet_pb2.LIVE_VIEW_REFUSAL_NOT_PERMITTED
        if request.source_id not in self._newest:
            return fleet_pb2.LIVE_VIEW_REFUSAL_UNKNOWN_SOURCE
        if self._bucket.level() < 1:
            return fleet_pb2.LIVE_VIEW_REFUSAL_TOO_OFTEN
        self._bucket.spend(1)
        newest = self._newest[request.source_id]()
        if newest is None:
            return fleet_pb2.LIVE_VIEW_REFUSAL_NO_SAMPLE
        try:
            answer.sample.CopyFrom(await asyncio.to_thread(live_sample, newest))
        except SampleRejected as error:
            log.warning("sample_not_showable", source=request.source_id, reason=error)
            return fleet_pb2.LIVE_VIEW_REFUSAL_NOT_SHOWABLE
        return fleet_pb2.LIVE_VIEW_REFUSAL_UNSPECIFIED

    def _note(self, request: detection_pb2.LiveViewRequested, refusal: Refusal) -> None:
        """Count and log an answer; log lines of refused ones are throttled."""
        source, asked_by = request.source_id[:MAX_NAME_CHARACTERS], request.asked_by[:MAX_NAME_CHARACTERS]
        if not refusal:
            self._counters.add({"live_views": 1})
            self.last_viewer = asked_by
            log.info("live_view", source=source, asked_by=asked_by)
            return
        self._counters.add({"live_views_refused": 1})
        if count := self._throttle.allow(f"refused {refusal}"):
            log.warning("live_view_refused", source=source, asked_by=asked_by, reason=_WORDS[refusal], count=count)
