"""Delivery of spooled samples to the service; each sample is settled by its own answer."""

import asyncio
import random
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

import grpc

from edge.disk import disk_error_text
from edge.settings import UplinkSettings
from edge.spool import Spool
from edge.spool_store import Settled, SpooledSample
from edge.tracing import SampleTraces
from edge.uplink.link import LinkState, wait_to_retry
from edge.uplink.meter import LinkMeter, RequestLimits
from edge.uplink.tasks import end, happens
from edge.uplink.transport import Transport
from edge.uplink.verdicts import VerdictStore
from shared.backoff import HALF_JITTER, Backoff
from shared.logs import EventLog, Throttle
from vedette.v1 import detection_pb2

_DELIVERED = (detection_pb2.SUBMIT_STATUS_ACCEPTED, detection_pb2.SUBMIT_STATUS_DUPLICATE)
_TOO_LARGE = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE)
_IDLE_S = 1.0
_RETRY_AFTER = "grpc-retry-pushback-ms"  # trailing metadata: the pause that the service asks for
MAX_PAUSE_S = 60.0
_ADVICE = {
    grpc.StatusCode.UNAUTHENTICATED: "enrol the device again",
    grpc.StatusCode.PERMISSION_DENIED: "the service refuses this device: see its log, or enrol the device again",
    grpc.StatusCode.UNIMPLEMENTED: "the server there is not a Vedette service of this version: check uplink.address",
}

log = EventLog("uplink")


class Delivery:
    """Drains the spool, the most suspicious first. A job of the uplink."""

    def __init__(
        self,
        settings: UplinkSettings,
        spool: Spool,
        verdicts: VerdictStore,
        meter: LinkMeter,
        traces: SampleTraces | None = None,
    ) -> None:
        self._settings, self._spool, self._verdicts, self._meter = settings, spool, verdicts, meter
        self._traces = traces
        self._signal = asyncio.Event()
        self._taking = asyncio.Lock()
        self._probing = asyncio.Lock()
        self._backoff = Backoff(settings.backoff_initial_s, settings.backoff_max_s, jitter=HALF_JITTER)
        self._limits = RequestLimits(settings)
        self._throttle = Throttle()
        self._paused_until_s = 0.0  # of time.monotonic()

    def wake(self) -> None:
        """Wake the job because the spool has samples. Call it on the uplink's loop."""
        self._signal.set()

    async def run(self, transport: Transport, link: LinkState) -> None:
        """Deliver until cancelled; see `Job.run`."""
        link.silence_limit_s = self._limits.deadline_s
        workers = [asyncio.create_task(self._work(transport, link)) for _ in range(self._settings.in_flight)]
        try:
            await asyncio.gather(*workers)
        finally:
            await end(workers)

    async def _work(self, transport: Transport, link: LinkState) -> None:
        while True:
            if link.status.connected and not self._limits.one_at_a_time:
                await self._send(transport, link, await self._next())
            else:  # without a connection, one attempt at a time is enough
                async with self._probing:
                    await self._send(transport, link, await self._next())

    async def _next(self) -> list[SpooledSample]:
        """Return samples to send, or none after a timeout. Waits briefly for more, to avoid small requests."""
        async with self._taking:
            self._signal.clear()
            if self._spool.status().samples < self._settings.batch_samples:
                await asyncio.sleep(self._settings.max_batch_age_ms / 1000)
            await asyncio.sleep(self._paused_until_s - time.monotonic())  # returns at once unless paused
            # On the loop itself: a cancellation here must not leave samples in flight.
            samples = self._spool.take(self._limits.samples, self._limits.bytes)
            if not samples:
                await happens(self._signal, _IDLE_S)
            return samples

    async def _send(self, transport: Transport, link: LinkState, samples: list[SpooledSample]) -> None:
        if not samples:
            return
        left, sent_s = {sample.sample_id: sample for sample in samples}, time.time()
        try:
            response = await self._submit(transport, link, samples)
            link.succeeded()
            self._settle(left, response)
            if self._traces is not None:
                self._traces.delivered([sample for sample in samples if sample.sample_id not in left], sent_s)
        except grpc.aio.AioRpcError as error:
            self._handle_failure(error, link, left)
        finally:
            self._spool.release([sample.seq for sample in left.values()])
        if left:
            await wait_to_retry(self._backoff, link)
        else:
            self._backoff.reset()

    async def _submit(
        self, transport: Transport, link: LinkState, samples: list[SpooledSample]
    ) -> detection_pb2.SubmitResponse:
        """Send samples and measure the link."""
        size_bytes = sum(len(sample.data) for sample in samples)
        is_busy = self._spool.status().samples > len(samples)
        started_s = time.monotonic()
        link.silence_limit_s = self._limits.deadline_s
        if is_busy:
            self._meter.began()
        delivered_bytes: int | None = None  # not measured
        try:
            response = await transport.submit([sample.data for sample in samples], self._limits.deadline_s)
            delivered_bytes = size_bytes
            self._limits.arrived(time.monotonic() - started_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                delivered_bytes = 0
                self._limits.late(size_bytes)
            raise
        finally:
            if is_busy and delivered_bytes is not None:
                self._meter.ended(delivered_bytes)
            elif is_busy:
                self._meter.abandoned()
        return response

    def _settle(self, left: dict[bytes, SpooledSample], response: detection_pb2.SubmitResponse) -> None:
        """Handle each answer and remove its sample from `left`; samples without an answer stay."""
        settled, delivered, answered = [], [], set[bytes]()
        for result in response.results:
            known = result.status in (*_DELIVERED, detection_pb2.SUBMIT_STATUS_REJECTED)
            sample = left.get(result.sample_id) if known else None
            if sample is None or sample.sample_id in answered:
                continue
            answered.add(sample.sample_id)
            if result.status in _DELIVERED:
                delivered.append(sample.sample_id)
                settled.append(Settled(sample))
            else:
                settled.append(Settled(sample, result.reason or "no reason given"))
        # First note them as awaited, then settle: after a crash in between they are sent again.
        try:
            self._verdicts.expect(delivered)
        except sqlite3.Error as error:
            text = disk_error_text(error, self._verdicts.path)
            log.error("awaited_not_noted", error=text, advice="free some space")
        self._spool.settle(settled, {"bytes_uploaded": sum(len(item.sample.data) for item in settled)})
        for sample_id in answered:  # not earlier: unsettled samples are released
            del left[sample_id]
        self._log_refused(settled)

    def _handle_failure(self, error: grpc.aio.AioRpcError, link: LinkState, left: dict[bytes, SpooledSample]) -> None:
        """Handle a failed request: link down, request too large, or a sample that is never accepted."""
        code, details = error.code(), error.details() or ""
        too_large = code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details
        if code not in _TOO_LARGE and not too_large:
            pause_s = _requested_pause_s(error)
            self._paused_until_s = max(self._paused_until_s, time.monotonic() + pause_s)
            if pause_s and code is grpc.StatusCode.RESOURCE_EXHAUSTED:
                self._busy(link, details, pause_s)
                return
            link.failed(error)
            count = self._throttle.allow(code.name)
            if count and code in _ADVICE:
                log.error("submit_refused", code=code.name, details=details, advice=_ADVICE[code])
            return
        link.succeeded()  # the service answered
        if len(left) > 1:
            self._limits.too_large(len(left))
            return
        settled = [Settled(sample, f"{code.name}: {details}") for sample in left.values()]
        left.clear()
        self._spool.settle(settled, {})
        self._log_refused(settled)

    def _busy(self, link: LinkState, details: str, pause_s: float) -> None:
        """Note that the service has no room now; the samples stay in the spool."""
        link.paused(details, pause_s)
        if count := self._throttle.allow("busy"):
            log.info("service_busy", requests=count, details=details, pause_s=pause_s)

    def _log_refused(self, settled: Sequence[Settled]) -> None:
        refused = [item for item in settled if item.refusal]
        count = self._throttle.allow("refused", len(refused)) if refused else 0
        if count:
            log.warning(
                "samples_refused",
                samples=count,
                sample_id=refused[0].sample.sample_id.hex(),
                reason=refused[0].refusal,
                advice="they are set aside: vedette edge spool shows them",
            )


def _requested_pause_s(error: grpc.aio.AioRpcError) -> float:
    """Return the seconds that the service asks to wait, at most MAX_PAUSE_S; 0 if it asks for none."""
    metadata: Any = error.trailing_metadata() or ()
    for key, value in metadata:
        if key == _RETRY_AFTER and str(value).isdecimal():
            pause_s = min(int(value) / 1000, MAX_PAUSE_S)
            return pause_s * (1.0 + HALF_JITTER * random.random())  # a fleet of devices must not return in step
    return 0.0
