"""`vedette.v1.Detection`: ingest of samples, durable before they are acknowledged."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from cloud.service.access import Access, Context, refuse
from cloud.service.admission import Admission, Admitted, Load, Refusal, invalid
from cloud.service.bundle_rules import BundleRules, Rules, check_fit
from cloud.service.metrics import Metrics
from cloud.service.request_slots import arrive
from cloud.service.store_check import StoreCheck
from cloud.service.watch import STORAGE_RETRY_MS, WatchService
from cloud.store import Store
from cloud.store.ingest import IngestStatus, Received, store_samples
from shared.errors import SampleRejected, StorageError
from shared.logs import EventLog, Throttle
from shared.modalities import sample_type
from shared.wire import MAX_SAMPLES_PER_REQUEST, decoded_bytes, undecoded_from_message
from vedette.v1 import detection_pb2, sample_pb2

SLOW_RETRY_MS = 5000
MAX_THROTTLED = 10_000  # devices and events whose log lines are counted
MAX_DECODED_BYTES = 2**30  # above the largest sample of any modality
_LOG = EventLog("detection")
_check_throttle = Throttle()
_STATUS = {
    IngestStatus.STORED: detection_pb2.SUBMIT_STATUS_ACCEPTED,
    IngestStatus.DUPLICATE: detection_pb2.SUBMIT_STATUS_DUPLICATE,
    IngestStatus.FOREIGN: detection_pb2.SUBMIT_STATUS_REJECTED,
}


class DetectionService:
    """Submit, beside the Watch of `watch`.

    `executor` checks payloads outside the event loop; `wake_analysis` is called after samples were stored.
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
    ) -> None:
        self._store = store
        self._store_check = store_check
        self._access = access
        self._admission = admission
        self._rules = rules
        self._watch = watch
        self._metrics = metrics
        self._executor = executor
        self._wake_analysis = wake_analysis
        self._throttle = Throttle(max_kinds=MAX_THROTTLED)

    def handlers(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """Return the handlers of all calls.

        Submit is registered as a stream of requests: its handler then starts before the request is read, and reads it
        only if there is room. The bytes on the wire are those of a single request.
        """
        submit = grpc.stream_unary_rpc_method_handler(
            self.Submit, response_serializer=detection_pb2.SubmitResponse.SerializeToString
        )
        watch = grpc.unary_stream_rpc_method_handler(
            self._watch.Watch,
            request_deserializer=detection_pb2.WatchRequest.FromString,
            response_serializer=detection_pb2.Event.SerializeToString,
        )
        name = detection_pb2.DESCRIPTOR.services_by_name["Detection"].full_name
        return grpc.method_handlers_generic_handler(name, {"Submit": submit, "Watch": watch})

    async def Submit(self, _: AsyncIterator[bytes], context: Context) -> detection_pb2.SubmitResponse:
        """Read, check and store a batch; return one result per sample."""
        started_s = time.perf_counter()
        device_id = await self._access.device_id(context)
        results, refusal = await self._submit(device_id, context)
        if refusal is not None:
            # Not inside _submit: gRPC keeps the exception, its traceback keeps the frames, and they keep the request.
            self._metrics.refused_requests.labels(refusal.kind).inc()
            await refuse(context, refusal.code, refusal.message, retry_after_ms=refusal.retry_after_ms)
        for result in results:
            self._metrics.samples.labels(detection_pb2.SubmitStatus.Name(result.status)[14:].lower()).inc()
        self._metrics.submit_seconds.observe(time.perf_counter() - started_s)
        return detection_pb2.SubmitResponse(results=results)

    async def _submit(
        self, device_id: str, context: Context
    ) -> tuple[list[detection_pb2.SampleResult], Refusal | None]:
        """Return the results of a request, or why it is refused."""
        if (refusal := self._admission.refusal_at_start(device_id)) is not None:
            return [], refusal
        if problem := await self._store_check.current_problem():
            return [], Refusal("store", problem, STORAGE_RETRY_MS, grpc.StatusCode.UNAVAILABLE)
        with self._admission.slots.take(device_id) as slot:
            # Not by the iterator of requests: it keeps the last one until the garbage collection.
            data = await arrive(slot, asyncio.ensure_future(context.read()))
            if data is None:
                return [], Refusal("slow", "The request arrives slowly, and others wait: try again.", SLOW_RETRY_MS)
            loop = asyncio.get_running_loop()
            try:
                request = await loop.run_in_executor(self._executor, detection_pb2.SubmitRequest.FromString, data)
            except (TypeError, DecodeError):  # grpc.aio.EOF instead of bytes, or bytes that are no message
                return [], invalid("The call holds no SubmitRequest.")
            del data
            load = _load(request)
            if load.samples > MAX_SAMPLES_PER_REQUEST:
                return [], invalid(f"{load.samples} samples in one request; the limit is {MAX_SAMPLES_PER_REQUEST}.")
            if (refusal := self._admission.refusal(device_id, load)) is not None:
                return [], refusal
            with self._admission.admit(device_id, load) as admitted:
                try:
                    return await self._ingest(device_id, request.samples, admitted), None
                except StorageError as error:
                    self._metrics.errors.labels("store").inc()
                    if count := self._throttle.allow(f"not stored {device_id}", load.samples):
                        _LOG.error("submit_not_stored", device_id=device_id, samples=count, error=error)
                    return [], Refusal("store", str(error), STORAGE_RETRY_MS, grpc.StatusCode.UNAVAILABLE)

    async def _ingest(
        self, device_id: str, messages: Sequence[sample_pb2.Sample], admitted: Admitted
    ) -> list[detection_pb2.SampleResult]:
        loop = asyncio.get_running_loop()
        rules = await self._rules.of({message.screening.bundle_id for message in messages})
        checked = await loop.run_in_executor(self._executor, check_samples, messages, rules)
        received = [item for item in checked if isinstance(item, Received)]
        outcomes = iter(await self._store_shielded(device_id, received, admitted) if received else [])
        results = []
        for message, item in zip(messages, checked, strict=True):
            result = detection_pb2.SampleResult(sample_id=message.sample_id[:16])
            if isinstance(item, str):
                result.status, result.reason = detection_pb2.SUBMIT_STATUS_REJECTED, item
            else:
                outcome = next(outcomes)
                result.status = _STATUS[outcome]
                if outcome is IngestStatus.FOREIGN:
                    result.reason = "another device has sent a sample of this id"
            results.append(result)
        reasons = [result.reason for result in results if result.reason]
        if reasons and (count := self._throttle.allow(f"rejected {device_id}", len(reasons))):
            _LOG.warning("samples_rejected", device_id=device_id, count=count, first=reasons[0])
        return results

    async def _store_shielded(self, device_id: str, received: list[Received], admitted: Admitted) -> list[IngestStatus]:
        """Store the samples in a separate task: a client that hangs up must not cancel the transaction."""

        async def store() -> list[IngestStatus]:
            outcomes = await store_samples(self._store, device_id, received, time.time())
            pairs = zip(received, outcomes, strict=True)
            stored = [item.payload for item, outcome in pairs if outcome is IngestStatus.STORED]
            admitted.stored = Load(len(stored), 0, sum(decoded_bytes(item.encoding, item.shape) for item in stored))
            self._metrics.payload_bytes.inc(sum(len(item.data) for item in stored))
            self._wake_analysis()
            return outcomes

        task = asyncio.create_task(store())
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            with contextlib.suppress(StorageError):
                await task  # the admission counts it when it has ended
            raise


def _load(request: detection_pb2.SubmitRequest) -> Load:
    """Return the load of a request.

    The decoded sizes are the announced ones, which the check compares with headers. It refuses each sample that
    announces more than MAX_DECODED_BYTES, so these do not count here.
    """
    payloads = [sample.payload for sample in request.samples]
    sizes = [decoded_bytes(item.encoding, item.shape) for item in payloads]
    return Load(len(payloads), request.ByteSize(), sum(size for size in sizes if size <= MAX_DECODED_BYTES))


def check_samples(messages: Sequence[sample_pb2.Sample], rules: Rules) -> list[Received | str]:
    """Return each sample, or the reason why it can never be accepted. Blocking.

    Compares the sample with its bundle first, then checks headers, lengths and checksums. Decodes readings and no
    pixels: the batcher decodes a payload once. A sample that turns out to be undecodable there gets an undecided
    verdict with the reason.
    """
    return [_check(message, rules) for message in messages]


def _check(message: sample_pb2.Sample, rules: Rules) -> Received | str:
    try:
        screened = message.screening
        texts = (message.source_id, message.origin, screened.bundle_id, screened.calibration_id, screened.artefact)
        if any("\0" in text for text in texts):
            raise SampleRejected("a text holds a zero character")
        rule = check_fit(message, rules)
        sample, screening = undecoded_from_message(message)
        if sample.crop is None:
            sample_type(sample.modality).check_values(message.payload, rule.spec)
    except SampleRejected as error:
        return str(error)
    except Exception as error:  # otherwise the sample would stay in the spool and fail again
        if count := _check_throttle.allow(type(error).__name__):
            _LOG.error("check_failed", error=f"{type(error).__name__}: {error}", count=count)
        return f"the sample cannot be checked: {type(error).__name__}"
    return Received(sample, screening, message.payload)
