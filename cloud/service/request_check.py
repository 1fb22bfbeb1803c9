"""Check of complete requests: many alike samples at once, others one by one; large requests in a thread."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from google.protobuf.message import DecodeError

from cloud.service.admission import Refusal, invalid
from cloud.service.alike_samples import AlikeCheck
from cloud.service.bundle_rules import BundleRules
from cloud.service.sample_check import CheckedFields, SharedFields, check_fields, check_payloads, plain_readings
from cloud.service.traces import IngestTraces
from cloud.store.inbox_request import InboxRequest
from cloud.store.ingest import holds_large_payloads, inbox_request
from cloud.store.segments import LEAST_SEGMENT_BYTES, LEAST_VALUE_BYTES
from shared.wire import MAX_SAMPLES_PER_REQUEST
from vedette.v1 import detection_pb2

INLINE_BYTES = 256 * 1024  # of a request, sent and decoded, that costs less to handle than a change of threads
MAX_EXTRA_BYTES = 4096  # of a sample beside its payload; what has more is packed again, without unknown fields
T = TypeVar("T")
Given = TypeVar("Given")


class RequestCheck:
    """Check against the rules of bundles; `executor` runs it for large requests, outside the event loop.

    `traces` decides which samples are traced; None: none of them. `takes_payloads`: large payloads leave the database.
    """

    def __init__(
        self,
        rules: BundleRules,
        executor: Executor,
        traces: IngestTraces | None = None,
        *,
        takes_payloads: bool = False,
    ) -> None:
        self._rules, self._executor, self._traces = rules, executor, traces
        self._takes_payloads = takes_payloads
        self._shared_fields = SharedFields()
        self._alike = AlikeCheck(lambda message: plain_readings(message, rules.known, self._shared_fields))

    async def fields(self, device_id: str, data: bytes) -> CheckedFields | Refusal:
        """Return what a look at the fields of all samples shows, or why the request can never be accepted.

        Raises StorageError if bundles cannot be looked up.
        """
        is_small = len(data) <= INLINE_BYTES
        look = partial(self._alike.check, device_id)
        alike = look(data) if is_small else await self._call(len(data), look, data)
        if alike is not None and not _has_extra(data, alike.payload_bytes, len(alike.sample_ids)):
            size = alike.payload_bytes
            checked = CheckedFields(sample_ids=list(alike.sample_ids), payload_bytes=size, decoded_bytes=size)
            return checked if len(alike.sample_ids) <= MAX_SAMPLES_PER_REQUEST else _too_many(len(alike.sample_ids))
        try:
            samples = (await self._call(len(data), detection_pb2.SubmitRequest.FromString, data)).samples
        except DecodeError:
            return invalid("The call holds no SubmitRequest.")
        if len(samples) > MAX_SAMPLES_PER_REQUEST:
            return _too_many(len(samples))
        check = partial(check_fields, samples, known=self._shared_fields)
        checked = await self._call(len(data), check, self._rules.known)
        if checked.unknown and (found := await self._rules.of(checked.unknown)):
            checked = await self._call(len(data), check, {**self._rules.known, **found})
        return checked

    async def payloads(self, data: bytes, checked: CheckedFields) -> dict[int, str]:
        """Return the reason for each sample that can never be accepted, by its place."""
        if not checked.messages:
            return {}
        return await self._call(max(len(data), checked.readings_bytes), check_payloads, checked)

    async def packed(
        self, device_id: str, data: bytes, checked: CheckedFields, reasons: dict[int, str]
    ) -> InboxRequest | None:
        """Return the samples without a reason as the inbox takes them; None if there are none."""
        count, messages = len(checked.sample_ids), checked.messages
        if reasons:
            messages = [message for place, message in enumerate(messages) if place not in reasons]
        if not count or len(reasons) == count:
            return None
        now_s, traced = time.time(), self._traces.accepted(messages) if self._traces is not None else ()
        if self._holds_large_payloads(checked):
            messages = messages or detection_pb2.SubmitRequest.FromString(data).samples
            pack = partial(inbox_request, device_id, now_s, traced=traced, takes_payloads=True)
            return await self._call(len(data), pack, messages)
        if reasons or _has_extra(data, checked.payload_bytes, count):
            pack = partial(inbox_request, device_id, now_s, traced=traced)
            return await self._call(len(data), pack, messages)
        return InboxRequest(device_id, now_s, checked.decoded_bytes, checked.sample_ids, data, traced)

    def _holds_large_payloads(self, checked: CheckedFields) -> bool:
        """Return whether payloads of a request leave the database."""
        if not self._takes_payloads or checked.payload_bytes < LEAST_SEGMENT_BYTES:
            return False
        are_large = checked.payload_bytes >= LEAST_VALUE_BYTES * len(checked.sample_ids)  # on average
        return are_large or holds_large_payloads(checked.messages)

    async def _call(self, size: int, function: Callable[[Given], T], argument: Given) -> T:
        """Return the result of work on `size` bytes; much work does not hold up the event loop."""
        if size <= INLINE_BYTES:
            return function(argument)
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, argument)


def _has_extra(data: bytes, payload_bytes: int, count: int) -> bool:
    """Return whether a request has much beside its payloads; it needs its messages to be packed again."""
    return len(data) > payload_bytes + MAX_EXTRA_BYTES * count


def _too_many(count: int) -> Refusal:
    return invalid(f"{count} samples in one request; the limit is {MAX_SAMPLES_PER_REQUEST}.")
