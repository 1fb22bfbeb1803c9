"""A small real service: gRPC with mutual TLS on a loopback port, that keeps what it accepts and fails when told to."""

import asyncio
import hashlib
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from cryptography.x509.oid import NameOID
from google.protobuf.timestamp_pb2 import Timestamp

from shared.bundle import Bundle
from shared.signing_keys import public_pem
from shared.wire import MAX_MESSAGE_BYTES
from tests.edge.certificates import Authority
from vedette.v1 import detection_pb2, detection_pb2_grpc, fleet_pb2, fleet_pb2_grpc, sample_pb2

SECRET = "one-time"


def chunks(archive: bytes, start: int) -> Iterator[fleet_pb2.Chunk]:
    """An archive from byte `start` on, as it should come."""
    for offset in range(start, len(archive), 1000):
        yield fleet_pb2.Chunk(offset=offset, data=archive[offset : offset + 1000])


class CloudDouble(detection_pb2_grpc.DetectionServicer, fleet_pb2_grpc.FleetServicer):
    """Its state may be read and changed from the test's thread."""

    def __init__(
        self, authority: Authority, *, port: int = 0, bundle_key: Any = None, clients: Authority | None = None
    ) -> None:
        self.authority, self.bundle_key = authority, bundle_key
        self.key_set: fleet_pb2.KeySet | None = None
        self.group_settings: fleet_pb2.GroupSettings | None = None
        self.samples: dict[bytes, sample_pb2.Sample] = {}
        self.order: list[bytes] = []  # as they arrived, resends included
        self.requests = 0
        self.duplicates = 0
        self.heartbeats: list[fleet_pb2.HeartbeatRequest] = []
        self.queries = 0
        self.clock_ahead_s = 0.0  # of the service
        self.events: list[detection_pb2.Event] = []
        self.cursors: list[int] = []
        self.fetch_offsets: list[int] = []
        self.desired: list[tuple[str, Bundle]] = []
        self.archive_of: Callable[[Bundle], bytes] = lambda bundle: bundle.archive(edge_only=True)
        self.chunks_of = chunks
        self.chunk_pause_s = 0.0
        self.cut_fetch_after: int | None = None
        self.spent: set[str] = set()
        # Called with each batch before it is answered: raises or returns the answers to give instead.
        self.submit_fault: Callable[[list[sample_pb2.Sample]], Any] | None = None
        self.answer_verdicts = True
        self._wanted_port, self._clients = port, clients or authority
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._done = asyncio.Event()
        self._changed = asyncio.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def enrolment_address(self) -> str:
        return f"127.0.0.1:{self.enrolment_port}"

    def start(self) -> "CloudDouble":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._done.set)
            self._thread.join(10)

    def sample_ids(self) -> set[str]:
        return {str(uuid.UUID(bytes=key)) for key in self.samples}

    def publish(self, bundle: Bundle, name: str = "plant") -> None:
        self.desired = [(name, bundle)]
        changed = detection_pb2.BundleChanged(bundle_name=name, bundle_id=bundle.manifest.bundle_id)
        asyncio.run_coroutine_threadsafe(self._emit(bundle_changed=changed), self._loop).result(5)

    async def Submit(
        self, request: detection_pb2.SubmitRequest, context: grpc.aio.ServicerContext
    ) -> detection_pb2.SubmitResponse:
        self.requests += 1
        self.order += [sample.sample_id for sample in request.samples]
        if self.submit_fault is not None:
            answer = self.submit_fault(list(request.samples))
            if asyncio.iscoroutine(answer):
                answer = await answer
            if isinstance(answer, grpc.StatusCode):
                await context.abort(answer, "as the test wants it")
            if answer is not None:
                return detection_pb2.SubmitResponse(results=answer)
        return detection_pb2.SubmitResponse(results=[await self.accept(sample) for sample in request.samples])

    async def accept(self, sample: sample_pb2.Sample) -> detection_pb2.SampleResult:
        """Keep one sample, and answer with a verdict soon."""
        if sample.sample_id in self.samples:
            self.duplicates += 1
            return detection_pb2.SampleResult(sample_id=sample.sample_id, status=detection_pb2.SUBMIT_STATUS_DUPLICATE)
        self.samples[sample.sample_id] = sample
        if self.answer_verdicts:
            now = Timestamp()
            now.FromNanoseconds(time.time_ns())
            verdict = sample_pb2.Verdict(
                sample_id=sample.sample_id,
                decision=sample_pb2.DECISION_ANOMALOUS,
                p_value=0.001,
                bundle_id=sample.screening.bundle_id,
                judged_at=now,
            )
            await self._emit(verdict=verdict)
        return detection_pb2.SampleResult(sample_id=sample.sample_id, status=detection_pb2.SUBMIT_STATUS_ACCEPTED)

    async def Watch(
        self, request: detection_pb2.WatchRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[detection_pb2.Event]:
        self.cursors.append(request.cursor)
        position = request.cursor
        while True:
            async with self._changed:
                while len(self.events) <= position:
                    await self._changed.wait()
            for event in self.events[position:]:
                yield event
                position = event.cursor

    async def Heartbeat(
        self, request: fleet_pb2.HeartbeatRequest, context: grpc.aio.ServicerContext
    ) -> fleet_pb2.HeartbeatResponse:
        if request.query_only:
            self.queries += 1
        else:
            self.heartbeats.append(request)
        desired = []
        for name, bundle in self.desired:
            archive = self.archive_of(bundle)
            desired.append(
                fleet_pb2.DesiredBundle(
                    bundle_name=name,
                    bundle_id=bundle.manifest.bundle_id,
                    archive_bytes=len(archive),
                    archive_sha256=hashlib.sha256(archive).digest(),
                )
            )
        now_ms = int((time.time() + self.clock_ahead_s) * 1000)
        return fleet_pb2.HeartbeatResponse(
            desired=desired, next_heartbeat_s=1, service_time_ms=now_ms, settings=self.group_settings
        )

    async def FetchBundle(
        self, request: fleet_pb2.FetchBundleRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[fleet_pb2.Chunk]:
        self.fetch_offsets.append(request.offset)
        bundle = next(item for _, item in self.desired if item.manifest.bundle_id == request.bundle_id)
        archive = self.archive_of(bundle)
        for chunk in self.chunks_of(archive, request.offset):
            if self.cut_fetch_after is not None and chunk.offset >= self.cut_fetch_after:
                self.cut_fetch_after = None
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            await asyncio.sleep(self.chunk_pause_s)
            yield chunk

    async def Enroll(
        self, request: fleet_pb2.EnrollRequest, context: grpc.aio.ServicerContext
    ) -> fleet_pb2.EnrollResponse:
        if request.token != SECRET or request.token in self.spent:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "The token is spent or wrong.")
        self.spent.add(request.token)
        asked = x509.load_pem_x509_csr(request.certificate_signing_request)
        name = asked.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        return fleet_pb2.EnrollResponse(
            device_id=str(name),
            certificate_pem=self.authority.sign(asked.public_key(), str(name)),  # type: ignore[arg-type]
            ca_certificate_pem=self.authority.pem,
            bundle_key_pem=public_pem(self.bundle_key),
            key_set=self.key_set,
        )

    async def _emit(self, **what: Any) -> None:
        async with self._changed:
            self.events.append(detection_pb2.Event(cursor=len(self.events) + 1, **what))
            self._changed.notify_all()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        key, certificate = self.authority.issue("service", server=True)
        limits = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.so_reuseport", 0)]
        server, enrolment = grpc.aio.server(options=limits), grpc.aio.server()
        detection_pb2_grpc.add_DetectionServicer_to_server(self, server)
        fleet_pb2_grpc.add_FleetServicer_to_server(self, server)
        fleet_pb2_grpc.add_FleetServicer_to_server(self, enrolment)
        mutual = grpc.ssl_server_credentials([(key, certificate)], self._clients.pem, require_client_auth=True)
        self.port = server.add_secure_port(f"127.0.0.1:{self._wanted_port}", mutual)
        one_sided = grpc.ssl_server_credentials([(key, certificate)])
        self.enrolment_port = enrolment.add_secure_port("127.0.0.1:0", one_sided)
        await server.start()
        await enrolment.start()
        self._ready.set()
        await self._done.wait()
        await asyncio.gather(server.stop(0.1), enrolment.stop(0.1))


@contextmanager
def running_cloud(authority: Authority, **options: Any) -> Iterator[CloudDouble]:
    cloud = CloudDouble(authority, **options).start()
    try:
        yield cloud
    finally:
        cloud.stop()
