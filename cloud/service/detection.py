"""`vedette.v1.Detection`: ingest of samples, durable before they are acknowledged; streams of events."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from cloud.service import answers
from cloud.service.access import STORE_FAILED, Access, ClientCertificate, Context, refuse
from cloud.service.admission import Admission, Admitted, Load, Refusal, invalid
from cloud.service.bundle_rules import BundleRules
from cloud.service.metrics import Metrics
from cloud.service.request_slots import Slot, arrive, evict
from cloud.service.sample_check import CheckedFields, SharedFields, check_fields, check_payloads
from cloud.service.store_check import StoreCheck
from cloud.service.traces import IngestTraces
from cloud.service.watch import STORAGE_RETRY_MS, WatchService
from cloud.store import Store
from cloud.store.group_commit import GroupCommit
from cloud.store.ingest import IngestStatus
from cloud.store.sample_rows import Row
from shared.errors import StorageError
from shared.logs import EventLog, Throttle
from shared.wire import MAX_SAMPLES_PER_REQUEST, MAX_TEXT_CHARACTERS
from vedette.v1 import detection_pb2

SLOW_RETRY_MS = 5000
MAX_THROTTLED = 10_000  # devices and events whose log lines are counted
CHECK_ARRIVALS_S = 1.0
INLINE_BYTES = 256 * 1024  # of a request, sent and decoded, that costs less to handle than a change of threads
T = TypeVar("T")
Given = TypeVar("Given")
_LOG = EventLog("detection")
_STATUS = {
    None: detection_pb2.SUBMIT_STATUS_REJECTED,
    IngestStatus.STORED: detection_pb2.SUBMIT_STATUS_ACCEPTED,
    IngestStatus.DUPLICATE: detection_pb2.SUBMIT_STATUS_DUPLICATE,
    IngestStatus.FOREIGN: detection_pb2.SUBMIT_STATUS_REJECTED,
}


class DetectionService:
    """Submit, beside the Watch of `watch`.

    `executor` checks payloads outside the event loop; `wake_analysis` is called after samples were stored; `traces` is
    None if no sample is traced.
    """

    def __init__(
        self,
        store: Store,
        store_check: StoreCheck,
        access: Access,
        admission: Admission,
        rules: BundleRules,
        watch: WatchService,
        metrics: Metrics,
        *,
        executor: Executor,
        wake_analysis: Callable[[], None],
        traces: IngestTraces | None = None,
    ) -> None:
        self._store = store
        self._commits = GroupCommit(store)
        self._shared_fields = SharedFields()
        self._arriving: dict[Slot, ClientCertificate] = {}
        self._store_check = store_check
        self._access = access
        self._admission = admission
        self._rules = rules
        self._watch = watch
        self._metrics = metrics
        self._executor = executor
        self._wake_analysis = wake_analysis
        self._traces = traces
        self._throttle = Throttle(max_kinds=MAX_THROTTLED)

    def handlers(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """Return the handlers of all calls.

        Submit is registered as a stream of requests: its handler then starts before the request is read, and reads it
        only if there is room. The bytes on the wire are those of a single request.
        """
        submit = grpc.stream_unary_rpc_method_handler(self.Submit, response_serializer=bytes)
        watch = grpc.unary_stream_rpc_method_handler(
            self._watch.Watch,
            request_deserializer=detection_pb2.WatchRequest.FromString,
            response_serializer=detection_pb2.Event.SerializeToString,
        )
        name = detection_pb2.DESCRIPTOR.services_by_name["Detection"].full_name
        return grpc.method_handlers_generic_handler(name, {"Submit": submit, "Watch": watch})

    async def Submit(self, _: AsyncIterator[bytes], context: Context) -> bytes:
        """Read, check and store a batch; return one result per sample."""
        started_s = time.perf_counter()
        answer = await self._submit(await self._access.new_call(context), context)
        if isinstance(answer, Refusal):
            # Not inside _submit: gRPC keeps the exception, its traceback keeps the frames, and they keep the request.
            self._metrics.refused_requests.labels(answer.kind).inc()
            await refuse(context, answer.code, answer.message, retry_after_ms=answer.retry_after_ms)
        self._metrics.submit_seconds.observe(time.perf_counter() - started_s)
        return answer

    async def run(self) -> None:
        """End the arrival of requests whose devices have lost their access, until cancelled.

        Other calls look themselves; these wait for their client.
        """
        while True:
            await asyncio.sleep(CHECK_ARRIVALS_S)
            with contextlib.suppress(StorageError):  # they go on until the store can be read
                lost = await self._access.lost(set(self._arriving.values()))
                for slot, used in self._arriving.items():
                    if used in lost:
                        evict(slot)

    async def _submit(self, used: ClientCertificate, context: Context) -> bytes | Refusal:
        """Return the serialised results of a request, or why it is refused."""
        device_id = used.device_id
        if (refusal := self._admission.refusal_at_start(device_id)) is not None:
            return refusal
        if await self._store_check.current_problem():
            return Refusal("store", STORE_FAILED, STORAGE_RETRY_MS, grpc.StatusCode.UNAVAILABLE)
        with self._admission.slots.take(device_id) as slot:
            # Not by the iterator of requests: it keeps the last one until the garbage collection.
            self._arriving[slot] = used
            try:
                data = await arrive(slot, context.read())
            finally:
                del self._arriving[slot]
            if data is None:
                await self._access.device_id(context)  # ends the call with the reason if that was lost
                return Refusal("slow", "The request arrives slowly, and others wait: try again.", SLOW_RETRY_MS)
            if not isinstance(data, bytes):  # grpc.aio.EOF
                return invalid("The call holds no SubmitRequest.")
            size = len(data)
            try:
                request = await self._call(size, detection_pb2.SubmitRequest.FromString, data)
            except DecodeError:
                return invalid("The call holds no SubmitRequest.")
            del data
            if (count := len(request.samples)) > MAX_SAMPLES_PER_REQUEST:
                return invalid(f"{count} samples in one request; the limit is {MAX_SAMPLES_PER_REQUEST}.")
            try:
                checked = await self._check_fields(device_id, request, size)
                load = Load(count, size, checked.decoded_bytes)
                if (refusal := self._admission.refusal(device_id, load)) is not None:
                    return refusal
                with self._admission.admit(device_id, load) as admitted:
                    return await self._ingest(checked, size, admitted)
            except StorageError as error:
                self._metrics.errors.labels("store").inc()
                if logged := self._throttle.allow(f"not stored {device_id}", count):
                    _LOG.error("submit_not_stored", device_id=device_id, samples=logged, error=error)
                return Refusal("store", STORE_FAILED, STORAGE_RETRY_MS, grpc.StatusCode.UNAVAILABLE)

    async def _call(self, size: int, function: Callable[[Given], T], argument: Given) -> T:
        """Return the result of work on a request of `size` bytes; large requests do not hold up the event loop."""
        if size <= INLINE_BYTES:
            return function(argument)
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, argument)

    async def _check_fields(self, device_id: str, request: detection_pb2.SubmitRequest, size: int) -> CheckedFields:
        """Return the checked fields of all samples; raises StorageError if bundles cannot be looked up."""
        now_s = time.time()
        check = partial(
            check_fields,
            request.samples,
            known=self._shared_fields,
            device_id=device_id,
            received_at_s=now_s,
            traces=self._traces,
        )
        checked = await self._call(size, check, self._rules.known)
        if checked.unknown and (found := await self._rules.of(checked.unknown)):
            checked = await self._call(size, check, {**self._rules.known, **found})
        return checked

    async def _ingest(self, checked: CheckedFields, size: int, admitted: Admitted) -> bytes:
        """Store the samples that pass the check of their payloads; return the serialised results of all."""
        rows = await self._call(max(size, checked.readings_bytes), check_payloads, checked)
        valid = [row for row in rows if not isinstance(row, str)]
        outcomes = await self._store_shielded(valid, admitted) if valid else []
        if self._traces is not None:
            self._traces.stored(checked.device_id, checked.received_at_s, valid, outcomes)
        if outcomes.count(IngestStatus.STORED) == len(rows):
            self._metrics.samples.labels("accepted").inc(len(rows))
            return answers.accepted([row[0][0] for row in valid])
        following = iter(outcomes)
        results, reasons = [], list[str]()
        for message, row in zip(checked.messages, rows, strict=True):
            outcome = None if isinstance(row, str) else next(following)
            result = detection_pb2.SampleResult(sample_id=message.sample_id[:16], status=_STATUS[outcome])
            if outcome is None or outcome is IngestStatus.FOREIGN:
                reason = row if isinstance(row, str) else "another device has sent a sample of this id"
                result.reason = reason[:MAX_TEXT_CHARACTERS]
                reasons.append(result.reason)
            results.append(result)
        if reasons and (count := self._throttle.allow(f"rejected {checked.device_id}", len(reasons))):
            _LOG.warning("samples_rejected", device_id=checked.device_id, count=count, first=reasons[0])
        for status, count in Counter([result.status for result in results]).items():
            self._metrics.samples.labels(detection_pb2.SubmitStatus.Name(status)[14:].lower()).inc(count)
        return detection_pb2.SubmitResponse(results=results).SerializeToString()

    async def _store_shielded(self, rows: list[Row], admitted: Admitted) -> list[IngestStatus]:
        """Store the samples; a client that hangs up does not stop that."""
        committed = self._commits.store(rows)
        try:
            outcomes = await asyncio.shield(committed)
        except asyncio.CancelledError:
            with contextlib.suppress(StorageError):
                self._count(rows, await committed, admitted)  # the admission counts it when it has ended
            raise
        self._count(rows, outcomes, admitted)
        return outcomes

    def _count(self, rows: list[Row], outcomes: list[IngestStatus], admitted: Admitted) -> None:
        """Count what was stored, and wake the analysis."""
        if outcomes.count(IngestStatus.STORED) < len(rows):
            rows = [row for row, outcome in zip(rows, outcomes, strict=True) if outcome is IngestStatus.STORED]
        admitted.stored = Load(len(rows), 0, sum([row[2] for row in rows]))
        self._metrics.payload_bytes.inc(sum([row[0][-1] for row in rows]))
        self._wake_analysis()
