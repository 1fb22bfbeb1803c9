"""One process of the service: the parts of its role, the order in which they start, and how they end."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloud.devices import late_after_s
from cloud.jobs.desk import TrainingDesk
from cloud.jobs.runner import TrainingRunner
from cloud.live_views.desk import LiveViewDesk
from cloud.service.analysis_part import AnalysisPart
from cloud.service.analysis_port import AnalysisListener, AnalysisPort, JudgedSamples
from cloud.service.analysis_process import AnalysisProcess
from cloud.service.authority import Authority
from cloud.service.comparisons import ComparisonRunner
from cloud.service.data_dir import Addresses, remove_addresses, write_addresses
from cloud.service.device_part import DevicePart
from cloud.service.housekeeping import Housekeeping
from cloud.service.http import AsgiApp, FrontApp, StreamingApp
from cloud.service.load_analysis import LoadAnalysis
from cloud.service.metrics import Metrics
from cloud.service.origins import OriginCheck
from cloud.service.ports import probe
from cloud.service.proxies import TrustedProxies
from cloud.service.rate_limit import RateLimit
from cloud.service.readiness import CurrentBundles
from cloud.service.roles import Role
from cloud.service.store_check import StoreCheck
from cloud.service.tokens import enrolment_of
from cloud.service.traces import IngestTraces
from cloud.service.web import WebServer
from cloud.settings import CloudSettings
from cloud.store import Store, open_store
from cloud.store.audit import SERVICE_ACTOR
from cloud.store.inbox_request import Doubles
from cloud.store.read_queue import CONSOLE_READS
from cloud.store.registry import Registry
from cloud.system.figures import System
from cloud.system.machine import Machine
from shared.addresses import Address
from shared.errors import StorageError
from shared.logs import EventLog, Throttle
from shared.signing_keys import key_id
from shared.tracing import SampleSpans

GRACE_S = 1.5
COUNT_AGAIN_S = 1.0
LIVE_VIEWS_PER_MINUTE, LIVE_VIEW_BURST = 60, 10  # of one person, and of one device
_LOG = EventLog("service")

MakeConsole = Callable[
    [Store, Store, Registry, CloudSettings, Callable[[], Mapping[str, str]], TrainingDesk, LiveViewDesk], StreamingApp
]


class Service:
    """One service process with the parts of its role.

    `load_analysis` loads the analysis of a bundle in this process; None: a child process judges. `failed` resolves to
    the error of a part that ended unexpectedly. `addresses` is set once the service has started.
    """

    addresses: Addresses

    def __init__(
        self,
        settings: CloudSettings,
        authority: Authority,
        trusted_key: Ed25519PublicKey,
        *,
        load_analysis: LoadAnalysis | None,
        make_console: MakeConsole | None = None,
        role: Role = Role.ALL,
    ) -> None:
        self._settings, self._trusted_key, self._role = settings, trusted_key, role
        self._authority = authority
        self._make_console = make_console
        self._status = "starting"
        self._throttle = Throttle()
        self._tasks: list[asyncio.Task[None]] = []
        self._stoppers: list[Callable[[], Awaitable[object]]] = []
        self._enders: list[Callable[[], None]] = []
        self._end = contextlib.ExitStack()
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.metrics = Metrics(role)
        self.store = open_store(settings.store, actor=SERVICE_ACTOR)
        # Apart from the connections for devices.
        self._console_store, self._api_store, self._session_store = (
            open_store(settings.store, CONSOLE_READS) for _ in range(3)
        )
        self.registry = Registry(self.store, settings.store, trusted_key)
        self._current_bundles = CurrentBundles(self.registry, self._on_readiness, self._on_failure)
        self._store_check = StoreCheck(self.store, self._on_readiness)
        endpoint = settings.tracing.endpoint  # empty: OpenTelemetry is not loaded
        self._spans = SampleSpans(endpoint, "vedette-cloud") if endpoint else None
        self._analysis = self._analysis_part(load_analysis) if role.judges else None
        self._comparisons = (
            ComparisonRunner(self.store, settings.analysis, settings.store, trusted_key, self._on_failure)
            if role.judges
            else None
        )
        self._devices = self._device_part() if role.serves_devices else None
        self._housekeeping = (
            Housekeeping(self.store, settings, self.metrics, self._on_failure, self.registry)
            if role.serves_devices
            else None
        )

        self._training = (
            TrainingRunner(self.store, self.registry, settings, self._on_failure)
            if role.trains and settings.training.concurrent_jobs
            else None
        )

    def _analysis_part(self, load_analysis: LoadAnalysis | None) -> AnalysisPort:
        listener = AnalysisListener(
            on_judged=self._on_judged,
            on_doubles=self._on_doubles,
            on_failure=self._on_failure,
            on_readiness=self._on_readiness,
            on_lost=self._count_again,
            takes_events=self._role.serves_devices,
        )
        settings = self._settings
        part: AnalysisPort
        if load_analysis is None:
            part = AnalysisProcess(settings, self._trusted_key, self.store.claimant, listener)
        else:
            part = AnalysisPart(
                self.store,
                self.registry,
                settings.analysis,
                settings.store,
                listener,
                load_analysis=load_analysis,
                spans=self._spans,
            )
        if not self._role.serves_devices:
            self.store.call_on_change(part.wake)
        return part

    def _device_part(self) -> DevicePart:
        return DevicePart(
            self.store,
            self.registry,
            self._settings,
            self._authority,
            self.metrics,
            self._store_check,
            wake_analysis=self._analysis.wake if self._analysis else None,
            on_failure=self._on_failure,
            traces=IngestTraces(self._spans, self._settings.tracing.samples_per_s) if self._spans else None,
        )

    async def start(self) -> None:
        """Start all parts; devices can call when this returns. Always call `stop` afterwards.

        Raises PortInUseError, SettingsError, StorageError or CertificateError if it cannot start.
        """
        settings, key = self._settings, "console_listen" if self._role.serves_people else "metrics_listen"
        if self._devices:
            await self._devices.count_waiting()
        listen = Address.parse(getattr(settings, key))
        web_socket = probe(listen, key)
        self._end.callback(web_socket.close)
        tls = self._console_tls()
        web = WebServer(self._web_front(listen), web_socket, settings.limits.console_connections, tls)
        await self._check_keys()
        if self._devices:
            self._stoppers.append(self._devices.stop)
            await self._devices.listen()
        self._start_tasks()
        if self._devices:
            await self._devices.start()
        self._stoppers.append(web.stop)
        await web.start()
        await self._announce(str(Address(listen.host, web_socket.getsockname()[1])))

    async def _announce(self, web_address: str) -> None:
        """Report that the service has started."""
        address, enrolment_address = self._devices.addresses if self._devices else ("", "")
        scheme = "https" if self._console_tls() else "http"
        url = f"{scheme}://{web_address}/" if self._role.serves_people else ""
        self.addresses = Addresses(address, enrolment_address, web_address, url, os.getpid())
        self._status = "ready"
        await self._set_health()
        if self._role is Role.ALL:  # of several processes none is the one to ask
            await asyncio.to_thread(write_addresses, self._settings.data_dir, self.addresses)
            self._end.callback(remove_addresses, self._settings.data_dir)
        event = "ready" if self._is_ready else "not_ready"
        facts = {"role": self._role, "backlog": self._backlog, **asdict(self.addresses)}
        _LOG.info(event, **{name: fact for name, fact in facts.items() if fact not in (None, "")})
        if self._role.serves_people and self._make_console is not None:
            await self._offer_first_account(url)

    async def _offer_first_account(self, console_url: str) -> None:
        """Log and print a one-time link that makes the first account, if there is none."""
        from cloud.service.people import first_admin_link

        if link := await first_admin_link(self.store, self._settings, console_url):
            _LOG.warning("no_account", link=link, advice="open the link once, and make the first administrator")
            print(f"Make the first account of the console: {link}", flush=True)

    def _console_tls(self) -> tuple[Path, Path] | None:
        certificate, key = self._settings.console_certificate, self._settings.console_key
        return (certificate, key) if certificate and key and self._role.serves_people else None

    def _web_front(self, listen: Address) -> AsgiApp:
        """Return the web application: metrics and health, and for people sign-in, the console and the HTTP API."""
        people = self._people_app() if self._role.serves_people else None
        front = FrontApp(self._metrics_page, self.health, self.readiness, people)
        if not self._role.serves_people and not listen.is_loopback:
            return front  # a monitoring system names the process by any address; the pages hold no data of devices
        checked = OriginCheck(front, listen, self._settings.console_names)
        return TrustedProxies(checked, self._settings.trusted_proxies)

    def _people_app(self) -> AsgiApp:
        console, desk = None, TrainingDesk(self._api_store, self.store, self.registry, self._settings)
        live_views = self._live_view_desk()
        if self._make_console is not None:
            registry = Registry(self._console_store, self._settings.store, self._trusted_key)
            console = self._make_console(
                self._console_store,
                self.store,
                registry,
                self._settings,
                lambda: self._current_bundles.problems,
                desk,
                live_views,
            )
            self._stoppers.append(console.end_streams)
        from cloud.rest import create_api  # FastAPI imports slowly: report configuration errors first
        from cloud.service.people import create_people_app

        api = create_api(
            self._api_store,
            self.store,
            late_after_s=late_after_s(self._settings.heartbeat_s),
            registry=self.registry,
            webhook_hosts=self._settings.notices.webhook_hosts,
            enrolment=enrolment_of(self._settings, self._authority),
            accounts=self._settings.accounts,
            system=System(self._api_store, self._settings, Machine(self._settings.data_dir)),
            share_days=self._settings.explanations.share_days,
            training=desk,
            live_views=live_views,
        )
        return create_people_app(self._settings, self._session_store, self.store, api=api, console=console)

    def _live_view_desk(self) -> LiveViewDesk:
        by_person, by_device = (RateLimit(LIVE_VIEWS_PER_MINUTE, LIVE_VIEW_BURST) for _ in range(2))
        desk = LiveViewDesk(self.store, person_wait_s=by_person.wait_s, device_wait_s=by_device.wait_s)
        self._enders.append(desk.end)
        return desk

    def _start_tasks(self) -> None:
        self._supervise("current_bundles", self._current_bundles.run())
        self._supervise("store_check", self._store_check.run())
        for part in (self._devices, self._analysis, self._training):
            for name, coroutine in part.tasks().items() if part else ():
                self._supervise(name, coroutine)
        if self._comparisons:
            self._supervise("comparisons", self._comparisons.run())
        if self._housekeeping:
            self._supervise("housekeeping", self._housekeeping.run())

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
        for store in (self._console_store, self._api_store, self._session_store):
            store.stop_reading()
        for end in self._enders:
            end()
        if self._devices:
            await self._devices.end_streams()
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
        for store in (self._console_store, self._api_store, self._session_store, self.store):
            await store.close()
        if self._devices:
            self._devices.close()
        if self._analysis:
            await asyncio.to_thread(self._analysis.stop)
        if self._spans:
            await asyncio.to_thread(self._spans.close)

    def health(self) -> dict[str, object]:
        """Return the body of /health, with status 503 unless the service runs."""
        backlog_samples = self._backlog if self._status == "ready" else None
        return {"status": self._readiness(), "role": self._role, "backlog_samples": backlog_samples}

    def readiness(self) -> dict[str, object]:
        """Return the body of /ready: reasons of store, analysis and current bundles; empty where they work."""
        problems = self._current_bundles.problems.items()
        found = [{"bundle_id": bundle_id, "reason": reason} for bundle_id, reason in sorted(problems)]
        reasons = {"store": self._store_check.problem, "analysis": self._analysis_problem}
        return {"status": self._readiness(), **reasons, "bundles": found}

    @property
    def _analysis_problem(self) -> str:
        """Reason why no sample can be judged; empty otherwise, and where the role does not judge."""
        return self._analysis.problem if self._analysis else ""

    @property
    def _backlog(self) -> int | None:
        """Number of waiting samples; None where the role does not follow it."""
        return self._devices.backlog if self._devices else None

    @property
    def _is_ready(self) -> bool:
        return not (self._current_bundles.problems or self._store_check.problem or self._analysis_problem)

    def _readiness(self) -> str:
        return "not ready" if self._status == "ready" and not self._is_ready else self._status

    async def _on_readiness(self) -> None:
        """Report a change of the state of store, analysis or current bundles."""
        if self._status == "ready":
            await self._set_health()
            if self._is_ready:
                _LOG.info("ready", backlog=self._backlog)
            else:
                bundles = ",".join(sorted(self._current_bundles.problems))
                reasons = {"store": self._store_check.problem, "analysis": self._analysis_problem}
                _LOG.error("not_ready", bundles=bundles, **reasons)

    async def _set_health(self) -> None:
        if self._devices:
            await self._devices.set_health(is_ready=self._is_ready, can_store=not self._store_check.problem)

    def _on_judged(self, judged: JudgedSamples) -> None:
        if self._devices:
            self._devices.judged(judged)

    def _on_doubles(self, doubles: Sequence[Doubles]) -> None:
        if self._devices:
            self._devices.doubles(doubles)

    async def _count_again(self) -> None:
        """Count the waiting samples in the store until that succeeds."""
        while self._devices:
            try:
                await self._devices.count_again()
                return
            except StorageError as error:
                self._on_failure(error)
                await asyncio.sleep(COUNT_AGAIN_S)

    async def _metrics_page(self) -> bytes:
        return self.metrics.page() + (await self._analysis.metrics_page() if self._analysis else b"")

    def _supervise(self, part: str, coroutine: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            try:
                await coroutine
            except Exception as error:
                _LOG.error("part_ended", part=part, error=error)
                if not self.failed.done():
                    self.failed.set_result(error)

        self._tasks.append(asyncio.create_task(run()))

    def _on_failure(self, error: Exception) -> None:
        self.metrics.errors.labels("analysis" if not isinstance(error, StorageError) else "store").inc()
        if count := self._throttle.allow(f"{type(error).__name__}: {error}"):
            _LOG.error("background_error", error=f"{type(error).__name__}: {error}", count=count)
