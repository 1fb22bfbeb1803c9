"""Side of the people: asks a device for its newest sample, and waits for the answer.

The sample is in memory while its request is answered, and nowhere else.
"""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from google.protobuf.message import DecodeError

from cloud.store import Store
from cloud.store.live_views import check_enrolled, note_live_view
from shared.errors import SampleRejected, VedetteError
from shared.images import encode_jpeg
from shared.live_views import REQUEST_ID_BYTES, ShownSample, shown_sample
from vedette.v1 import fleet_pb2, live_view_pb2

MAX_PENDING, MAX_PENDING_OF_PERSON = 16, 3
FOUND_S, ANSWER_S = 2.0, 6.0  # until a process has the device's stream, and until the device has answered
BUSY_RETRY_S = 2.0
MAX_SOURCE_CHARACTERS = 128
JPEG_QUALITY = 85


class LiveViewState(StrEnum):
    """Outcome of a live view."""

    SHOWN = "shown"
    NOT_CONNECTED = "not connected"
    OLD_AGENT = "old agent"
    NO_ANSWER = "no answer"
    NOT_PERMITTED = "not permitted"
    NO_SAMPLE = "no sample"
    UNKNOWN_SOURCE = "unknown source"
    TOO_OFTEN = "too often"
    NOT_SHOWABLE = "not showable"
    REFUSED_ANSWER = "refused answer"


WORDS = {
    LiveViewState.SHOWN: "This is the newest screened sample of the source.",
    LiveViewState.NOT_CONNECTED: "The device is not connected now: nobody can ask it.",
    LiveViewState.OLD_AGENT: "The agent of this device is too old to show samples: update it.",
    LiveViewState.NO_ANSWER: f"The device is connected, but has not answered within {ANSWER_S:g} s. Try again.",
    LiveViewState.NOT_PERMITTED: "Not permitted by the device: live_view.allowed is false in its edge.toml, or its "
    "mode is edge_only.",
    LiveViewState.NO_SAMPLE: "No sample of the source was screened since the agent started.",
    LiveViewState.UNKNOWN_SOURCE: "The device has no source of this name.",
    LiveViewState.TOO_OFTEN: "The device shows no more samples for a while: live_view.max_per_minute in its "
    "edge.toml, or its upload budget, is used up. Wait a few seconds.",
    LiveViewState.NOT_SHOWABLE: "The newest screened sample is too large to be shown.",
    LiveViewState.REFUSED_ANSWER: "The answer of the device was refused, because it breaks a rule.",
}
_STATE_OF_REFUSAL = {
    fleet_pb2.LIVE_VIEW_REFUSAL_NOT_PERMITTED: LiveViewState.NOT_PERMITTED,
    fleet_pb2.LIVE_VIEW_REFUSAL_NO_SAMPLE: LiveViewState.NO_SAMPLE,
    fleet_pb2.LIVE_VIEW_REFUSAL_UNKNOWN_SOURCE: LiveViewState.UNKNOWN_SOURCE,
    fleet_pb2.LIVE_VIEW_REFUSAL_TOO_OFTEN: LiveViewState.TOO_OFTEN,
    fleet_pb2.LIVE_VIEW_REFUSAL_NOT_SHOWABLE: LiveViewState.NOT_SHOWABLE,
}


class LiveViewLimitError(VedetteError):
    """Too many live views; the next one is possible after `retry_s`."""

    def __init__(self, message: str, retry_s: float) -> None:
        super().__init__(message)
        self.retry_s = retry_s


@dataclass(frozen=True, slots=True)
class LiveView:
    """Outcome of one request; `sample` is None unless it is shown. `picture`: JPEG made here, empty for readings."""

    state: LiveViewState
    sample: ShownSample | None = None
    picture: bytes = b""

    @property
    def words(self) -> str:
        """Outcome in a sentence."""
        return WORDS[self.state]


@dataclass(slots=True)
class _Pending:
    actor: str
    found: asyncio.Event = field(default_factory=asyncio.Event)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    state: LiveViewState = LiveViewState.NO_ANSWER
    sample: fleet_pb2.LiveSample | None = None

    def end(self, state: LiveViewState) -> None:
        """Set the outcome, unless there is one."""
        if not self.answered.is_set():
            self.state = state
            self.found.set()
            self.answered.set()


class LiveViewDesk:
    """Live views for the pages and the HTTP API of one process.

    `person_wait_s` and `device_wait_s` count an attempt of an actor or for a device; they return 0, or the seconds to
    wait.
    """

    def __init__(
        self, store: Store, *, person_wait_s: Callable[[str], float], device_wait_s: Callable[[str], float]
    ) -> None:
        self._store = store
        self._person_wait_s, self._device_wait_s = person_wait_s, device_wait_s
        self._pending: dict[bytes, _Pending] = {}
        store.call_on_message(self._on_message)

    async def view(self, device_id: str, source_id: str, *, name: str, actor: str) -> LiveView:
        """Ask a device for the newest screened sample of a source, and wait ANSWER_S for it at most.

        `name` is shown to the device, `actor` in the audit log. Raises LiveViewLimitError, SettingsError for an unknown
        device, and StorageError if the entry of the audit log cannot be stored: nobody looks without one.
        """
        if len(self._pending) >= MAX_PENDING:
            raise LiveViewLimitError("Too many people look at devices at this moment: try again.", BUSY_RETRY_S)
        if sum(each.actor == actor for each in self._pending.values()) >= MAX_PENDING_OF_PERSON:
            raise LiveViewLimitError("Too many live views of this person wait for a device: try again.", BUSY_RETRY_S)
        if (wait_s := self._person_wait_s(actor)) > 0:
            raise LiveViewLimitError("Too many live views by this person.", wait_s)
        request_id, pending = os.urandom(REQUEST_ID_BYTES), _Pending(actor)
        self._pending[request_id] = pending
        try:
            await check_enrolled(self._store, device_id)  # the limit remembers ids of known devices alone
            if (wait_s := self._device_wait_s(device_id)) > 0:
                raise LiveViewLimitError("Too many live views of this device.", wait_s)
            await note_live_view(self._store, device_id, source_id, actor, time.time())
            ask = live_view_pb2.LiveViewAsk(device_id=device_id, source_id=source_id, asked_by=name)
            message = live_view_pb2.LiveViewMessage(request_id=request_id, ask=ask)
            await self._store.tell(message.SerializeToString())
            await _wait(pending)
        finally:
            del self._pending[request_id]
        if pending.sample is None:
            return LiveView(pending.state)
        try:
            return await asyncio.to_thread(_shown, pending.sample)
        except SampleRejected:
            return LiveView(LiveViewState.REFUSED_ANSWER)

    def end(self) -> None:
        """End all waits, because the process stops."""
        for pending in self._pending.values():
            pending.end(LiveViewState.NO_ANSWER)

    def _on_message(self, data: bytes) -> None:
        """Take what processes that serve devices report on a request of this process."""
        try:
            message = live_view_pb2.LiveViewMessage.FromString(data)
        except DecodeError:
            return
        pending = self._pending.get(message.request_id)
        if pending is None:
            return
        match message.WhichOneof("content"):
            case "progress" if message.progress == live_view_pb2.LIVE_VIEW_PROGRESS_OLD_AGENT:
                pending.end(LiveViewState.OLD_AGENT)
            case "progress":
                pending.found.set()
            case "refused_answer":
                pending.end(LiveViewState.REFUSED_ANSWER)
            case "answer" if message.answer.HasField("sample"):
                pending.sample = message.answer.sample
                pending.end(LiveViewState.SHOWN)
            case "answer":
                pending.end(_STATE_OF_REFUSAL.get(message.answer.refusal, LiveViewState.REFUSED_ANSWER))


async def _wait(pending: _Pending) -> None:
    """Wait for the answer; set the outcome if there is none in time."""
    state = LiveViewState.NOT_CONNECTED
    try:
        async with asyncio.timeout(ANSWER_S):
            async with asyncio.timeout(FOUND_S):
                await pending.found.wait()
            state = LiveViewState.NO_ANSWER
            await pending.answered.wait()
    except TimeoutError:
        pending.end(state)


def _shown(message: fleet_pb2.LiveSample) -> LiveView:
    """Return a received sample; pictures are decoded and written again, so that browsers get no bytes of a device."""
    sample = shown_sample(message)
    if sample.image_size is None:
        return LiveView(LiveViewState.SHOWN, sample)
    return LiveView(LiveViewState.SHOWN, sample, encode_jpeg(np.asarray(sample.values, np.uint8), JPEG_QUALITY))
