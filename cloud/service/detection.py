"""`vedette.v1.Detection`: ingest of samples, durable before they are acknowledged; streams of events."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import Any

import grpc

from cloud.service import answers
from cloud.service.access import STORE_FAILED, Access, ClientCertificate, Context, refuse
from cloud.service.admission import BUSY_RETRY_MS, Admission, Admitted, Load, Refusal, invalid
from cloud.service.bundle_rules import BundleRules
from cloud.service.metrics import Metrics
from cloud.service.request_check import RequestCheck
from cloud.service.request_slots import Slot, arrive, evict, evict_overdue
from cloud.service.sample_check import CheckedFields
from cloud.service.store_check import StoreCheck
from cloud.service.traces import IngestTraces
from cloud.service.watch import STORAGE_RETRY_MS, WatchService
from cloud.store import Store
from cloud.store.group_commit import GroupCommit
from cloud.store.inbox_request import InboxRequest
from cloud.store.ingest import IngestStatus, Known
from shared.errors import StorageError
from shared.logs import EventLog, Throttle
from shared.wire import MAX_TEXT_CHARACTERS
from vedette.v1 import detection_pb2

SLOW_RETRY_MS = 5000
MAX_THROTTLED = 10_000  # devices and events whose log lines are counted
CHECK_ARRIVALS_S = 1.0
NOT_ITS_OWN = ("busy", "store", "backlog")  # reasons of refusals that no single device causes
FOREIGN_REASON = "another device has sent a sample of this id"
_LOG = EventLog("detection")
_STATUS = {
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
        self._check = RequestCheck(rules, executor, traces, takes_payloads=store.segments.are_used)
        self._traces = traces
        self._arriving: dict[Slot, ClientCertificate] = {}
        self._store_check = store_check
        self._access = access
        self._admission = admission
        self._watch = watch
        self._metrics = metrics
        self._accepted = metrics.samples.labels("accepted")  # once: a look-up takes microseconds
        self._wake_analysis = wake_analysis
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
            response_serializer=bytes,
        )
        name = detection_pb2.DESCRIPTOR.services_by_name["Detection"].full_name
        return grpc.method_handlers_generic_handler(name, {"Submit": submit, "Watch": watch})

    async def Submit(self, _: AsyncIterator[bytes], context: Context) -> bytes:
        """Read, check and store a batch; return one result per sample."""
        started_s = time.perf_counter()
        used = await self._access.new_call(context)
        answer = await self._submit(used, context)
        if isinstance(answer, Refusal):
            # Not inside _submit: gRPC keeps the exception, its traceback keeps the frames, and they keep the request.
            self._metrics.refused_requests.labels(answer.kind).inc()
            is_logged = answer.kind not in NOT_ITS_OWN
            if is_logged and (count := self._throttle.allow(f"refused {answer.kind} {used.device_id}")):
                _LOG.warning("requests_refused", device_id=used.device_id, requests=count, reason=answer.message)
            await refuse(context, answer.code, answer.message, retry_after_ms=answer.retry_after_ms)
        self._metrics.submit_seconds.observe(time.perf_counter() - started_s)
        return answer

    async def run(self) -> None:
        """End the arrival of requests that take too long or whose devices have lost their access, until cancelled.

        Other calls look themselves; these wait for their client.
        """
        while True:
            await asyncio.sleep(CHECK_ARRIVALS_S)
            evict_overdue(self._arriving)
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
        if self._store_check.problem and await self._store_check.current_problem():
            return Refusal("store", STORE_FAILED, STORAGE_RETRY_MS, grpc.StatusCode.UNAVAILABLE)
        if (slot := await self._admission.slots.take(device_id)) is None:
            return Refusal("busy", "The service handles as many requests as it can: try again.", BUSY_RETRY_MS)
        try:
            return await self._read_and_stored(used, slot, context)
        except StorageError as error:
            self._metrics.errors.labels("store").inc()
            if count := self._throttle.allow(f"not stored {device_id}"):
                _LOG.error("submit_not_stored", device_id=device_id, requests=count, error=error)
            return Refusal("store", STORE_FAILED, STORAGE_RETRY_MS, grpc.StatusCode.UNAVAILABLE)
        finally:
            self._admission.slots.free(slot)

    async def _read_and_stored(self, used: ClientCertificate, slot: Slot, context: Context) -> bytes | Refusal:
        """Return the results of a request that has a slot, or why it is refused. Raises StorageError."""
        # Not by the iterator of requests: it keeps the last one until the garbage collection.
        self._arriving[slot] = used
        try:
            data = await arrive(slot, context.read())
        except asyncio.CancelledError:
            self._admission.did_not_arrive(used.device_id)
            raise
        finally:
            del self._arriving[slot]
        if data is None:
            self._admission.did_not_arrive(used.device_id)
            await self._access.device_id(context)  # ends the call with the reason if that was lost
            return Refusal("slow", "The request arrives slowly, and others wait: try again.", SLOW_RETRY_MS)
        if not isinstance(data, bytes):  # grpc.aio.EOF, also where the client ended the call
            self._admission.did_not_arrive(used.device_id)
            return invalid("The call holds no SubmitRequest.")
        self._admission.arrived(used.device_id, len(data))
        try:
            return await self._checked_and_stored(used.device_id, data)
        except StorageError:
            self._admission.excuse(used.device_id, len(data))
            raise

    async def _checked_and_stored(self, device_id: str, data: bytes) -> bytes | Refusal:
        """Store the samples that pass the check; return the serialised results of all. Raises StorageError."""
        checked = await self._check.fields(device_id, data)
        if isinstance(checked, Refusal):
            return checked
        load = Load(len(checked.sample_ids), len(data), checked.decoded_bytes)
        if (refusal := self._admission.refusal(device_id, load)) is not None:
            # The agent knows neither the backlog nor what its samples decode to.
            self._admission.excuse(device_id, len(data))
            return refusal
        with self._admission.admit(device_id, load) as admitted:
            reasons = await self._check.payloads(data, checked)
            request = await self._check.packed(device_id, data, checked, reasons)
            known = await self._store_shielded(request, admitted) if request is not None else {}
        refused = len(reasons) + sum(status is IngestStatus.FOREIGN for status in known.values())
        self._admission.excuse(device_id, len(data), 1 - refused / max(load.samples, 1))
        if self._traces is not None and request is not None:
            self._traces.stored(request, known)
        self._metrics.payload_bytes.inc(checked.payload_bytes * admitted.stored.samples // max(load.samples, 1))
        if request is None or reasons or known:
            return self._mixed_answer(device_id, checked, reasons, known)
        self._accepted.inc(load.samples)
        return answers.accepted(request.sample_ids)

    def _mixed_answer(self, device_id: str, checked: CheckedFields, reasons: dict[int, str], known: Known) -> bytes:
        """Return the serialised results of a request with samples that are rejected or known; count and log them."""
        results, place = [], 0
        for position, sample_id in enumerate(checked.sample_ids):
            result = detection_pb2.SampleResult(sample_id=sample_id[:16])
            if (reason := reasons.get(position, "")) == "":
                outcome, place = known.get(place, IngestStatus.STORED), place + 1
                result.status = _STATUS[outcome]
                reason = FOREIGN_REASON if outcome is IngestStatus.FOREIGN else ""
            else:
                result.status = detection_pb2.SUBMIT_STATUS_REJECTED
            result.reason = reason[:MAX_TEXT_CHARACTERS]
            results.append(result)
        given = [result.reason for result in results if result.reason]
        if given and (count := self._throttle.allow(f"rejected {device_id}", len(given))):
            _LOG.warning("samples_rejected", device_id=device_id, count=count, first=given[0])
        for status, count in Counter([result.status for result in results]).items():
            self._metrics.samples.labels(detection_pb2.SubmitStatus.Name(status)[14:].lower()).inc(count)
        return detection_pb2.SubmitResponse(results=results).SerializeToString()

    async def _store_shielded(self, request: InboxRequest, admitted: Admitted) -> Known:
        """Store the samples; a client that hangs up does not stop that."""
        committed = self._commits.store(request)
        try:
            known = await asyncio.shield(committed)
        except asyncio.CancelledError:
            with contextlib.suppress(StorageError):
                self._count(request, await committed, admitted)  # the admission counts it when it has ended
            raise
        self._count(request, known, admitted)
        return known

    def _count(self, request: InboxRequest, known: Known, admitted: Admitted) -> None:
        """Count what was stored, and wake the analysis."""
        samples, left = len(request.sample_ids), len(request.sample_ids) - len(known)
        admitted.stored = Load(left, 0, request.decoded_bytes * left // samples)
        self._wake_analysis()
