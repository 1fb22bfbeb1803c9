"""Side of the devices: passes requests for live views to their event streams, and takes the answers.

An answer counts only for an open request to the same device, once, and within OPEN_S.
"""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError

from cloud.service.access import Context, refuse
from cloud.service.event_notifier import EventNotifier
from cloud.store import Store
from shared.errors import SampleRejected, StorageError
from shared.live_views import MAX_ANSWER_BYTES, REQUEST_ID_BYTES, check_live_sample
from shared.logs import EventLog, Throttle
from vedette.v1 import detection_pb2, fleet_pb2, live_view_pb2

OPEN_S = 10.0
MAX_OPEN = 256
_LOG = EventLog("live_view")


@dataclass(frozen=True, slots=True)
class _OpenRequest:
    device_id: str
    until_s: float


class DeviceLiveViews:
    """Open requests of people to devices, in the memory of this process."""

    def __init__(self, store: Store, notifier: EventNotifier) -> None:
        self._store, self._notifier = store, notifier
        self._open: OrderedDict[bytes, _OpenRequest] = OrderedDict()
        self._sending: set[asyncio.Task[None]] = set()
        self._throttle = Throttle(max_kinds=10_000)

    def listen(self) -> None:
        """Take requests from now on."""
        self._store.call_on_message(self._on_message)

    async def answer(self, device_id: str, request: fleet_pb2.AnswerLiveViewRequest, context: Context) -> None:
        """Pass the answer of a device on; end the call if it was not asked, or if the answer breaks a rule."""
        if not self._take(device_id, request.request_id):
            if count := self._throttle.allow(f"unasked {device_id}"):
                _LOG.warning("live_view_not_asked", device_id=device_id, count=count)
            message = "Nobody waits for this answer: the device was not asked, has answered already, or is late."
            await refuse(context, grpc.StatusCode.NOT_FOUND, message)
        passed = live_view_pb2.LiveViewMessage(request_id=request.request_id)
        reason = _broken_rule(request)
        if reason:
            passed.refused_answer = reason[:200]
        else:
            passed.answer.CopyFrom(request)
        await self._tell(passed)
        if reason:
            _LOG.warning("live_view_refused", device_id=device_id, reason=reason)
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"The answer is refused: {reason}.")

    def _take(self, device_id: str, request_id: bytes) -> bool:
        """Close the open request of a device; return whether there was one."""
        opened = self._open.get(request_id)
        if opened is None or opened.device_id != device_id or time.monotonic() > opened.until_s:
            return False
        del self._open[request_id]
        return True

    def _on_message(self, data: bytes) -> None:
        """Ask the device if it has an event stream here; the answer may come to any process."""
        try:
            message = live_view_pb2.LiveViewMessage.FromString(data)
        except DecodeError:
            return
        if message.WhichOneof("content") != "ask" or len(message.request_id) != REQUEST_ID_BYTES:
            return
        ask, now_s = message.ask, time.monotonic()
        while self._open and (len(self._open) >= MAX_OPEN or next(iter(self._open.values())).until_s < now_s):
            self._open.popitem(last=False)
        opened = self._open[message.request_id] = _OpenRequest(ask.device_id, now_s + OPEN_S)
        progress = self._ask(message.request_id, ask, opened.until_s)
        if progress:
            passed = live_view_pb2.LiveViewMessage(request_id=message.request_id, progress=progress)
            task = asyncio.get_running_loop().create_task(self._tell(passed))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    def _ask(self, request_id: bytes, ask: live_view_pb2.LiveViewAsk, until_s: float) -> live_view_pb2.LiveViewProgress:
        """Put a request on the event streams of its device; return 0 if it has none here."""
        streams = self._notifier.streams_of(ask.device_id)
        able = [stream for stream in streams if stream.answers_live_views]
        request = detection_pb2.LiveViewRequested(request_id=request_id, source_id=ask.source_id, asked_by=ask.asked_by)
        for stream in able:
            stream.ask(request, until_s)
        if able:
            return live_view_pb2.LIVE_VIEW_PROGRESS_SENT
        return live_view_pb2.LIVE_VIEW_PROGRESS_OLD_AGENT if streams else live_view_pb2.LIVE_VIEW_PROGRESS_UNSPECIFIED

    async def _tell(self, message: live_view_pb2.LiveViewMessage) -> None:
        try:
            await self._store.tell(message.SerializeToString())
        except StorageError as error:  # the person sees that no answer came
            if count := self._throttle.allow("store"):
                _LOG.error("live_view_not_passed", error=error, count=count)


def _broken_rule(request: fleet_pb2.AnswerLiveViewRequest) -> str:
    """Return the rule that an answer breaks, or an empty text."""
    if request.ByteSize() > MAX_ANSWER_BYTES:
        return f"{request.ByteSize()} bytes; the limit is {MAX_ANSWER_BYTES}"
    if not request.HasField("sample"):
        return "" if request.refusal else "it holds neither a sample nor a reason"
    try:
        check_live_sample(request.sample)
    except SampleRejected as error:
        return str(error)
    return ""
