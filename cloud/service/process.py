"""Service as a whole: its parts, the order in which they start, and how they end."""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any

import grpc.aio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from cloud.devices import late_after_s
from cloud.service.access import Access
from cloud.service.admission import Admission
from cloud.service.authority import Authority
from cloud.service.bundle_rules import BundleRules
from cloud.service.connection_limit import ConnectionLimit
from cloud.service.credentials import certificate_names, server_credentials
from cloud.service.data_dir import Addresses, remove_addresses, write_addresses
from cloud.service.detection import DetectionService
from cloud.service.event_notifier import EventNotifier
from cloud.service.fleet import EnrolmentService, FleetService
from cloud.service.http import AsgiApp, FrontApp
from cloud.service.metrics import Metrics
from cloud.service.notices.center import NoticeCenter
from cloud.service.origins import OriginCheck, check_console_listen
from cloud.service.ports import grpc_server, listen_grpc, probe
from cloud.service.readiness import CurrentBundles
from cloud.service.removals import run_removals
from cloud.service.rollout_control import RolloutControl
from cloud.service.store_check import StoreCheck
from cloud.service.watch import WatchService
from cloud.service.web import WebServer
from cloud.serving.batcher import Batcher, Judged
from cloud.serving.bounded_judge import BoundedJudge
from cloud.serving.cache import AnalysisCache
from cloud.serving.ports import Judge
from cloud.serving.worker import Worker
from cloud.settings import CloudSettings
from cloud.store import Store, open_store
from cloud.store.audit import SERVICE_ACTOR
from cloud.store.events import WrittenEvent
from cloud.store.judging import backlog
from cloud.store.read_queue import CONSOLE_READS
from cloud.store.registry import Registry
from cloud.store.retention import remove_old
from shared.addresses import Address
from shared.bundle import Bundle
from shared.errors import StorageError, VedetteError
from shared.logs import EventLog, Throttle
from shared.signing_keys import key_id
from shared.wire import MAX_MESSAGE_BYTES
from vedette.v1 import detection_pb2, fleet_pb2, fleet_pb2_grpc

GRACE_S = 1.5
MAX_ENROLMENT_BYTES = 64 * 1024
FRAMING_BYTES = 64 * 1024
RETENTION_EVERY_S = 3600.0
SLOW_NICENESS = 10  # requests and small samples come first where all cores are busy
_DETECTION = detection_pb2.DESCRIPTOR.services_by_name["Detection"].full_name
_FLEET = fleet_pb2.DESCRIPTOR.services_by_name["Fleet"].full_name
_LOG = EventLog("service")

MakeConsole = Callable[[Store, Registry, CloudSettings, Callable[[], Mapping[str, str]]], AsgiApp]


class Service:
    """One service process.

    `failed` resolves to the error of a part that ended unexpectedly. `addresses` is set once the service has started.
    """

    addresses: Addresses

    def __init__(
        self,
        settings: CloudSettings,
        authority: Authority,
        trusted_key: Ed25519PublicKey,
        *,
        load_analysis: Callable[[Bundle], Judge],
        make_console: MakeConsole | None = None,
    ) -> None:
        self._settings = settings
        self._authority = authority
        self._trusted_key = trusted_key
        self._make_console = make_console
        self._status = "starting"
        self._throttle = Throttle()
        self._tasks: list[asyncio.Task[None]] = []
        self._health_servicers: list[Any] = []
        self._stoppers: list[Callable[[], Awaitable[object]]] = []
        self._end = contextlib.ExitStack()
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.metrics = Metrics()
        self.store = open_store(settings.store, actor=SERVICE_ACTOR)
        # Apart from the connections for devices.
        self._console_store, self._api_store = (open_store(settings.store, CONSOLE_READS) for _ in range(2))
        self.registry = Registry(self.store, settings.store, trusted_key)
        self._current_bundles = CurrentBundles(self.registry, self._on_readiness, self._on_failure)
        self._store_check = StoreCheck(self.store, self._on_readiness)
        self._access = Access(self.store, settings.limits, self.metrics)
        self._worker, self._slow_worker = (
            self._make_worker("analysis"),
            self._make_worker("slow-analysis", SLOW_NICENESS),
        )
        self._executor = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1), thread_name_prefix="check")
        self._notifier = EventNotifier(self.store, self._on_failure)
        self._watch = WatchService(
            self.store,
            self._access,
            self._notifier,
            self.metrics,
            streams_per_device=settings.limits.watches_per_device,
            on_failure=self._on_failure,
        )
        self._rollouts = RolloutControl(
            self.store,
            self.metrics,
            check_every_s=settings.rollouts.check_every_s,
            late_after_s=late_after_s(settings.heartbeat_s),
            on_failure=self._on_failure,
        )
        self._notices = NoticeCenter(self.store, settings.notices, settings.data_dir, self._on_failure)
        self._analyses = self._make_analyses(load_analysis)
        self._batcher = self._make_batcher()

    async def start(self) -> None:
        """Start all parts; devices can call when this returns. Always call `stop` afterwards.

        Raises PortInUseError, SettingsError, StorageError or CertificateError if it cannot start.
        """
        settings = self._settings
        check_console_listen(settings)
        self._admission = Admission(settings.limits, await backlog(self.store))
        self.metrics.backlog.set_function(lambda: self._admission.backlog)
        listen = Address.parse(settings.console_listen)
        console_socket = probe(listen, "console_listen")
        self._end.callback(console_socket.close)
        front = self._web_front()
        await self._check_keys()
        names = certificate_names(settings)
        device_server, address = await self._device_server(names)
        enrolment_server, enrolment_address = await self._enrolment_server(names)
        self._start_tasks()
        self._supervise("connections", self._connection_limit(address, enrolment_address).run())
        for server in (device_server, enrolment_server):
            await server.start()
            self._stoppers.append(partial(server.stop, GRACE_S))
        web = WebServer(
            OriginCheck(front, listen, settings.console_names), console_socket, settings.limits.console_connections
        )
        self._stoppers.append(web.stop)
        await web.start()
        console_address = str(Address(listen.host, console_socket.getsockname()[1]))
        self.addresses = Addresses(
            address, enrolment_address, console_address, f"http://{console_address}/", os.getpid()
        )
        self._status = "ready"
        await self._set_health()
        await asyncio.to_thread(write_addresses, settings.data_dir, self.addresses)
        self._end.callback(remove_addresses, settings.data_dir)
        event = "ready" if self._is_ready else "not_ready"
        _LOG.info(event, backlog=self._admission.backlog, **asdict(self.addresses))

    def _web_front(self) -> FrontApp:
        """Return the web application: console, HTTP API, metrics and health."""
        console = None
        if self._make_console is not None:
            registry = Registry(self._console_store, self._settings.store, self._trusted_key)
            console = self._make_console(
                self._console_store, registry, self._settings, lambda: self._current_bundles.problems
            )
        from cloud.rest import create_api  # FastAPI imports slowly: report configuration errors first

        late = late_after_s(self._settings.heartbeat_s)
        api = create_api(self._api_store, self.store, late_after_s=late, registry=self.registry)
        return FrontApp(self.metrics, self.health, self.readiness, console, api)

    def _start_tasks(self) -> None:
        self._supervise("event_notifier", self._notifier.run())
        self._supervise("watch", self._watch.run())
        self._supervise("current_bundles", self._current_bundles.run())
        self._supervise("store_check", self._store_check.run())
        self._supervise("warm_up", self._warm_up())
        self._supervise("batcher", self._batcher.run())
        self._supervise("rollouts", self._rollouts.run())
        self._supervise("retention", self._remove_old())
        self._supervise("removals", run_removals(self.store, self._on_failure))
        self._supervise("notices", self._notices.run())

    async def _check_keys(self) -> None:
        """Check the current bundles, and that the key of the settings is still trusted."""
        trusted = [key_id(key) for key in await self.registry.key_chain.keys()]
        if (configured := key_id(self._trusted_key)) not in trusted:
            advice = "the key sets in the store decide: see vedette cloud keys list, and correct bundle_key"
            _LOG.warning("bundle_key_not_trusted", key=configured, trusted=",".join(trusted), advice=advice)
        await self._current_bundles.check()

    async def stop(self) -> None:
        """End all parts within 5 seconds; waiting samples stay in the store."""
        self._status = "stopping"
        self._notifier.close()
        for store in (self._console_store, self._api_store):
            store.stop_reading()
        for servicer in self._health_servicers:
            await servicer.enter_graceful_shutdown()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GRACE_S)
        self.store.stop_reading()
        self._tasks.clear()
        # Concurrently: each may take its full grace period, but their sum must not.
        await asyncio.gather(*(stop() for stop in self._stoppers), return_exceptions=True)
        self._stoppers.clear()
        self._end.close()
        for store in (self._console_store, self._api_store, self.store):
            await store.close()
        self._executor.shutdown(wait=False, cancel_futures=True)
        for worker in (self._worker, self._slow_worker):
            await asyncio.to_thread(worker.stop, 0.25)

    def _make_worker(self, name: str, niceness: int = 0) -> Worker:
        return Worker(name, niceness, on_crash=self.metrics.worker_crashes.inc)

    def _make_analyses(self, load_analysis: Callable[[Bundle], Judge]) -> AnalysisCache:
        analysis = self._settings.analysis
        analyses = AnalysisCache(
            self.registry.bundle,
            lambda bundle: BoundedJudge(load_analysis(bundle), self.metrics.halved_batches.inc),
            self._slow_worker,
            analysis.cached_bundles,
            analysis.cached_bytes,
        )
        self.metrics.cached_bytes.set_function(lambda: analyses.resident_bytes)
        self.metrics.cached_bundles.set_function(lambda: len(analyses))
        return analyses

    def _make_batcher(self) -> Batcher:
        return Batcher(
            self.store,
            self._analyses,
            self._worker,
            self._slow_worker,
            find_bundle=self.registry.judging_bundle_id,
            batch_size=self._settings.analysis.batch_size,
            false_alarm_rate=self._settings.analysis.false_alarm_rate,
            on_judged=self._on_judged,
            on_failure=self._on_failure,
        )

    def health(self) -> dict[str, object]:
        """Return the body of /health, with status 503 unless the service runs."""
        backlog_samples = self._admission.backlog if self._status == "ready" else None
        return {"status": self._readiness(), "backlog_samples": backlog_samples}

    def readiness(self) -> dict[str, object]:
        """Return the body of /ready: why the store cannot be written, and the current bundles that do not verify."""
        problems = self._current_bundles.problems.items()
        found = [{"bundle_id": bundle_id, "reason": reason} for bundle_id, reason in sorted(problems)]
        return {"status": self._readiness(), "store": self._store_check.problem, "bundles": found}

    @property
    def _is_ready(self) -> bool:
        return not (self._current_bundles.problems or self._store_check.problem)

    def _readiness(self) -> str:
        return "not ready" if self._status == "ready" and not self._is_ready else self._status

    async def _on_readiness(self) -> None:
        """Report a change of the store's state or of the current bundles that do not verify."""
        if self._status == "ready":
            await self._set_health()
            if self._is_ready:
                _LOG.info("ready", backlog=self._admission.backlog)
            else:
                bundles = ",".join(sorted(self._current_bundles.problems))
                _LOG.error("not_ready", bundles=bundles, store=self._store_check.problem)

    async def _set_health(self) -> None:
        """Set the health of the service as a whole, and of Detection, which serves while the store can be written."""
        code = health_pb2.HealthCheckResponse
        device_port, *_ = self._health_servicers
        for servicer in self._health_servicers:
            await servicer.set("", code.SERVING if self._is_ready else code.NOT_SERVING)
        await device_port.set(_DETECTION, code.NOT_SERVING if self._store_check.problem else code.SERVING)

    async def _device_server(self, names: list[str]) -> tuple[grpc.aio.Server, str]:
        server = grpc_server(MAX_MESSAGE_BYTES + FRAMING_BYTES, self._settings.limits.connections)
        detection = DetectionService(
            self.store,
            self._store_check,
            self._access,
            self._admission,
            BundleRules(self.registry),
            self._watch,
            self.metrics,
            executor=self._executor,
            wake_analysis=self._batcher.wake,
        )
        self._supervise("arrivals", detection.run())
        fleet = FleetService(
            self.store,
            self.registry,
            self._access,
            self.metrics,
            authority=self._authority,
            certificate_days=self._settings.device_certificate_days,
            heartbeat_s=self._settings.heartbeat_s,
            fetches_per_device=self._settings.limits.fetches_per_device,
        )
        server.add_generic_rpc_handlers((detection.handlers(),))
        fleet_pb2_grpc.add_FleetServicer_to_server(fleet, server)
        await self._add_health(server, _DETECTION, _FLEET)
        credentials = server_credentials(self._authority, names, require_client_certificate=True)
        return server, listen_grpc(server, self._settings.listen, credentials, "listen")

    async def _enrolment_server(self, names: list[str]) -> tuple[grpc.aio.Server, str]:
        server = grpc_server(MAX_ENROLMENT_BYTES, self._settings.limits.enrolment_connections)
        service = EnrolmentService(
            self.store,
            self._authority,
            self.registry.key_chain,
            self.metrics,
            attempts_per_minute=self._settings.limits.enrolments_per_minute,
            certificate_days=self._settings.device_certificate_days,
        )
        fleet_pb2_grpc.add_FleetServicer_to_server(service, server)
        await self._add_health(server, _FLEET)
        credentials = server_credentials(self._authority, names, require_client_certificate=False)
        return server, listen_grpc(server, self._settings.enrolment_listen, credentials, "enrolment_listen")

    async def _add_health(self, server: grpc.aio.Server, *services: str) -> None:
        servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]
        for name in ("", *services):
            await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        self._health_servicers.append(servicer)

    def _connection_limit(self, *addresses: str) -> ConnectionLimit:
        limit = self._settings.limits.connections_per_address
        ports = {Address.parse(address).port: limit for address in addresses}
        return ConnectionLimit(ports, self.metrics.refused_requests.labels("connections").inc)

    def _supervise(self, part: str, coroutine: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            try:
                await coroutine
            except Exception as error:
                _LOG.error("part_ended", part=part, error=error)
                if not self.failed.done():
                    self.failed.set_result(error)

        self._tasks.append(asyncio.create_task(run()))

    async def _remove_old(self) -> None:
        while True:
            try:
                removed = await remove_old(self.store, **self._settings.retention.model_dump())
                _LOG.info("old_removed", **removed)
            except StorageError as error:
                self._on_failure(error)
            await asyncio.sleep(RETENTION_EVERY_S)

    async def _warm_up(self) -> None:
        """Load the current bundles, so that the first sample does not wait for them."""
        try:
            current = await self.registry.all_current()
        except StorageError as error:
            self._on_failure(error)
            return
        for entry in current[: self._settings.analysis.cached_bundles]:
            try:
                started_s = time.perf_counter()
                await self._analyses.get(entry.bundle_id)
                _LOG.info("bundle_ready", bundle=entry.bundle_id, seconds=time.perf_counter() - started_s)
            except VedetteError as error:
                self._on_failure(error)

    def _on_judged(self, judged: Judged, written: Sequence[WrittenEvent], seconds: float) -> None:
        now_s = time.time()
        self._admission.judged([(waiting.device_id, waiting.decoded_bytes) for waiting, _ in judged], seconds)
        self._notifier.publish(written)
        for waiting, verdict in judged:
            self.metrics.verdicts.labels(verdict.decision.value).inc()
            self.metrics.verdict_seconds.observe(max(0.0, now_s - waiting.received_at_s))
        reasons = [verdict.reason for _, verdict in judged if verdict.reason]
        if reasons and (count := self._throttle.allow("undecided", len(reasons))):
            _LOG.warning("samples_undecided", count=count, first=reasons[0])
        bundle_id = judged[0][1].bundle_id if judged else ""
        if count := self._throttle.allow(f"judged {bundle_id}", len(judged)):
            _LOG.info("samples_judged", bundle=bundle_id, samples=count, seconds=seconds)

    def _on_failure(self, error: Exception) -> None:
        self.metrics.errors.labels("analysis" if not isinstance(error, StorageError) else "store").inc()
        if count := self._throttle.allow(f"{type(error).__name__}: {error}"):
            _LOG.error("background_error", error=f"{type(error).__name__}: {error}", count=count)
