"""Part of a service process with the ports of devices: samples, events, bundles, heartbeats, enrolment."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from cloud.service.access import Access
from cloud.service.admission import Admission
from cloud.service.analysis_port import JudgedSamples
from cloud.service.authority import Authority
from cloud.service.backlog_count import count_backlog
from cloud.service.bundle_rules import BundleRules
from cloud.service.connection_limit import ConnectionLimit
from cloud.service.credentials import certificate_names, server_credentials
from cloud.service.detection import DetectionService
from cloud.service.event_notifier import EventNotifier
from cloud.service.fleet import EnrolmentService, FleetService
from cloud.service.live_views import DeviceLiveViews
from cloud.service.metrics import Metrics
from cloud.service.ports import grpc_server, listen_grpc
from cloud.service.store_check import StoreCheck
from cloud.service.traces import IngestTraces
from cloud.service.watch import WatchService
from cloud.settings import CloudSettings
from cloud.store import Store
from cloud.store.inbox_request import Doubles
from cloud.store.judging import backlog
from cloud.store.registry import Registry
from shared.addresses import Address
from shared.wire import MAX_MESSAGE_BYTES
from vedette.v1 import detection_pb2, fleet_pb2, fleet_pb2_grpc

GRACE_S = 1.5
MAX_ENROLMENT_BYTES = 64 * 1024
FRAMING_BYTES = 64 * 1024
_DETECTION = detection_pb2.DESCRIPTOR.services_by_name["Detection"].full_name
_FLEET = fleet_pb2.DESCRIPTOR.services_by_name["Fleet"].full_name


class DevicePart:
    """Device port and enrolment port; `wake_analysis` is None if other processes judge.

    `addresses` are host:port of both after `listen`.
    """

    addresses: tuple[str, str]

    def __init__(
        self,
        store: Store,
        registry: Registry,
        settings: CloudSettings,
        authority: Authority,
        metrics: Metrics,
        store_check: StoreCheck,
        *,
        wake_analysis: Callable[[], None] | None,
        on_failure: Callable[[Exception], None],
        traces: IngestTraces | None = None,
    ) -> None:
        self._traces = traces
        self._store, self._registry, self._settings = store, registry, settings
        self._authority, self._metrics, self._store_check = authority, metrics, store_check
        self._wake_analysis, self._on_failure = wake_analysis, on_failure
        self._health_servicers: list[Any] = []
        self._servers: list[grpc.aio.Server] = []
        self._access = Access(store, settings.limits, metrics)
        self._executor = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1), thread_name_prefix="check")
        self._notifier = EventNotifier(store, on_failure, is_pushed=wake_analysis is not None)
        self._live_views = DeviceLiveViews(store, self._notifier)
        self._watch = WatchService(
            store,
            self._access,
            self._notifier,
            metrics,
            streams_per_device=settings.limits.watches_per_device,
            on_failure=on_failure,
        )

    @property
    def backlog(self) -> int:
        """Number of samples that wait for a verdict."""
        return self._admission.backlog

    async def count_waiting(self) -> None:
        """Count the samples that wait in the store; raises StorageError."""
        self._admission = Admission(self._settings.limits, await backlog(self._store))
        self._metrics.backlog.set_function(lambda: self._admission.backlog)

    async def count_again(self) -> None:
        """Correct the number of waiting samples by those in the store; raises StorageError."""
        with self._admission.recounting() as recount:
            recount(await backlog(self._store), None)

    async def listen(self) -> None:
        """Open both ports; raises PortInUseError or CertificateError."""
        names = certificate_names(self._settings)
        self._detection = DetectionService(
            self._store,
            self._store_check,
            self._access,
            self._admission,
            BundleRules(self._registry),
            self._watch,
            self._metrics,
            executor=self._executor,
            wake_analysis=self._wake_analysis or _nothing,
            traces=self._traces,
        )
        self.addresses = (await self._device_server(names), await self._enrolment_server(names))

    def tasks(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Return the work to run until cancelled, by name."""
        limit = self._settings.limits.connections_per_address
        ports = {Address.parse(address).port: limit for address in self.addresses}
        connections = ConnectionLimit(ports, self._metrics.refused_requests.labels("connections").inc)
        verdicts = None
        if self._wake_analysis is None:
            self._store.call_on_change(self._notifier.follow_soon)
            verdicts = self._number_of_events
        return {
            "event_notifier": self._notifier.run(),
            "watch": self._watch.run(),
            "arrivals": self._detection.run(),
            "connections": connections.run(),
            "backlog": count_backlog(self._store, self._admission, self._on_failure, verdicts),
        }

    async def start(self) -> None:
        """Serve devices."""
        self._live_views.listen()
        for server in self._servers:
            await server.start()

    async def end_streams(self) -> None:
        """Report to clients that the service ends, and end the event streams."""
        self._notifier.close()
        for servicer in self._health_servicers:
            await servicer.enter_graceful_shutdown()

    async def stop(self) -> None:
        """End both servers and their calls within GRACE_S."""
        servers, self._servers = self._servers, []
        await asyncio.gather(*(server.stop(GRACE_S) for server in servers))

    def close(self) -> None:
        """End the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def judged(self, judged: JudgedSamples) -> None:
        """Push the events of verdicts that the own analysis has stored, and shorten the backlog."""
        if judged.loads:
            self._admission.judged(judged.loads, judged.seconds)
        self._notifier.publish(judged.events)

    def doubles(self, doubles: Sequence[Doubles]) -> None:
        """Shorten the backlog by samples that were counted twice."""
        for item in doubles:
            self._admission.leave(item.device_id, item.samples, item.decoded_bytes)

    def _number_of_events(self) -> int:
        return self._notifier.newest

    async def set_health(self, *, is_ready: bool, can_store: bool) -> None:
        """Set the health of the service as a whole, and of Detection, which serves while the store can be written."""
        code = health_pb2.HealthCheckResponse
        device_port, *_ = self._health_servicers
        for servicer in self._health_servicers:
            await servicer.set("", code.SERVING if is_ready else code.NOT_SERVING)
        await device_port.set(_DETECTION, code.SERVING if can_store else code.NOT_SERVING)

    async def _device_server(self, names: list[str]) -> str:
        server = grpc_server(MAX_MESSAGE_BYTES + FRAMING_BYTES, self._settings.limits.connections)
        fleet = FleetService(
            self._store,
            self._registry,
            self._access,
            self._metrics,
            authority=self._authority,
            live_views=self._live_views,
            certificate_days=self._settings.device_certificate_days,
            heartbeat_s=self._settings.heartbeat_s,
            fetches_per_device=self._settings.limits.fetches_per_device,
        )
        server.add_generic_rpc_handlers((self._detection.handlers(),))
        fleet_pb2_grpc.add_FleetServicer_to_server(fleet, server)
        await self._add_health(server, _DETECTION, _FLEET)
        credentials = server_credentials(self._authority, names, require_client_certificate=True)
        return listen_grpc(server, self._settings.listen, credentials, "listen")

    async def _enrolment_server(self, names: list[str]) -> str:
        server = grpc_server(MAX_ENROLMENT_BYTES, self._settings.limits.enrolment_connections)
        service = EnrolmentService(
            self._store,
            self._authority,
            self._registry.key_chain,
            self._metrics,
            attempts_per_minute=self._settings.limits.enrolments_per_minute,
            certificate_days=self._settings.device_certificate_days,
        )
        fleet_pb2_grpc.add_FleetServicer_to_server(service, server)
        await self._add_health(server, _FLEET)
        credentials = server_credentials(self._authority, names, require_client_certificate=False)
        return listen_grpc(server, self._settings.enrolment_listen, credentials, "enrolment_listen")

    async def _add_health(self, server: grpc.aio.Server, *services: str) -> None:
        # grpc-stubs does not know the module `aio` of grpcio-health-checking.
        servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]
        for name in ("", *services):
            await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        self._health_servicers.append(servicer)
        self._servers.append(server)


def _nothing() -> None:
    """Do nothing: other processes judge, and the store tells them."""
