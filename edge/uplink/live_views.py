"""Answers to live views: the newest sample of a source for a person, within the limits that the device sets."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Protocol

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
ANSWER_S = 5.0  # for an answer to be sent, and for a request to wait for its turn: nobody waits longer
MAX_NAME_CHARACTERS = 128

log = EventLog("live_view")

Refusal = fleet_pb2.LiveViewRefusal
_WORDS = {
    fleet_pb2.LIVE_VIEW_REFUSAL_NOT_PERMITTED: "not permitted by the settings",
    fleet_pb2.LIVE_VIEW_REFUSAL_NO_SAMPLE: "no sample screened yet",
    fleet_pb2.LIVE_VIEW_REFUSAL_UNKNOWN_SOURCE: "no such source",
    fleet_pb2.LIVE_VIEW_REFUSAL_TOO_OFTEN: "beyond live_view.max_per_minute or router.max_bytes_per_s",
    fleet_pb2.LIVE_VIEW_REFUSAL_NOT_SHOWABLE: "too large to be shown",
}


class ByteBudget(Protocol):
    """Part of the upload budget that counts bytes."""

    def available_bytes(self) -> float:
        """Return the bytes that may be sent now; not above 0 while the budget is used up."""
        ...

    def correct(self, extra_bytes: float) -> None:
        """Charge bytes."""
        ...


class LiveViews:
    """Answers requests one by one. A job of the uplink; `ask` and `run` belong to its loop.

    `permitted`: the settings allow live views. `newest`: the newest sample of each source, None before the first one.
    `budget` is charged for the sent samples. `last_viewer`: name of the person or API token that saw the last sample.
    """

    def __init__(
        self,
        settings: LiveViewSettings,
        newest: Mapping[str, Callable[[], NewestSample | None]],
        counters: Counters,
        budget: ByteBudget,
        *,
        permitted: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._newest, self._counters, self._permitted = newest, counters, permitted
        self._budget, self._clock = budget, clock
        self._bucket = TokenBucket(settings.max_per_minute / 60, BURST_S)
        self._waiting: asyncio.Queue[tuple[float, detection_pb2.LiveViewRequested]] = asyncio.Queue(MAX_WAITING)
        self._throttle = Throttle()
        self.last_viewer = ""

    def ask(self, request: detection_pb2.LiveViewRequested) -> None:
        """Answer a request within ANSWER_S; later ones and those beyond MAX_WAITING are dropped without an answer."""
        if self._waiting.full():
            self._note_dropped(request, "too many requests")
            return
        self._waiting.put_nowait((self._clock(), request))

    async def run(self, transport: Transport, link: LinkState) -> None:
        """Answer requests until cancelled; see `Job.run`."""
        while True:
            arrived_s, request = await self._waiting.get()
            if self._clock() - arrived_s > ANSWER_S:
                self._note_dropped(request, "too late")
                continue
            answer = fleet_pb2.AnswerLiveViewRequest(request_id=request.request_id)
            refusal = await self._show(request, answer)
            if refusal:
                answer.refusal = refusal
                self._note_refused(request, refusal)
            else:
                self._note_sent(request, answer.ByteSize())
            try:
                await transport.answer_live_view(answer, ANSWER_S)
            except grpc.aio.AioRpcError as error:  # nothing is lost: the person can ask again
                self._note_failed(request, refusal, error)
            else:
                if not refusal:  # else it may be that nobody saw it
                    self._counters.add({"live_views": 1})
                    self.last_viewer = _who(request)["asked_by"]

    async def _show(self, request: detection_pb2.LiveViewRequested, answer: fleet_pb2.AnswerLiveViewRequest) -> Refusal:
        """Put the sample into the answer; return the refusal if it is not shown, else 0."""
        if not self._permitted:
            return fleet_pb2.LIVE_VIEW_REFUSAL_NOT_PERMITTED
        if request.source_id not in self._newest:
            return fleet_pb2.LIVE_VIEW_REFUSAL_UNKNOWN_SOURCE
        if self._bucket.level() < 1 or self._budget.available_bytes() <= 0:
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

    def _note_sent(self, request: detection_pb2.LiveViewRequested, size_bytes: int) -> None:
        """Log a sample at every level of the log, before it is sent, and charge its bytes."""
        log.record("live_view", **_who(request))
        self._budget.correct(size_bytes)
        self._counters.add({"bytes_live_views": size_bytes})

    def _note_refused(self, request: detection_pb2.LiveViewRequested, refusal: Refusal) -> None:
        """Count and log a refusal; log lines are throttled."""
        self._counters.add({"live_views_refused": 1})
        if count := self._throttle.allow(f"refused {refusal}"):
            log.warning("live_view_refused", **_who(request), reason=_WORDS[refusal], count=count)

    def _note_failed(
        self, request: detection_pb2.LiveViewRequested, refusal: Refusal, error: grpc.aio.AioRpcError
    ) -> None:
        """Log an answer of which the service has not said that it took it; the person may have seen its sample."""
        reason = {"code": error.code().name, "error": error.details()}
        if not refusal:
            log.record("live_view_not_delivered", **_who(request), **reason)
        elif count := self._throttle.allow("undelivered"):
            log.warning("live_view_not_delivered", **reason, count=count)

    def _note_dropped(self, request: detection_pb2.LiveViewRequested, reason: str) -> None:
        if count := self._throttle.allow(f"dropped {reason}"):
            log.warning("live_view_dropped", **_who(request), reason=reason, count=count)


def _who(request: detection_pb2.LiveViewRequested) -> dict[str, str]:
    """Return source and name of a request as fields of the log, cut."""
    return {
        "source": request.source_id[:MAX_NAME_CHARACTERS],
        "asked_by": request.asked_by[:MAX_NAME_CHARACTERS],
    }
