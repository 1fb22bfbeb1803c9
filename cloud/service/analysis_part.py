"""Part of a service process that judges waiting samples."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloud.analysis_settings import AnalysisSettings
from cloud.service.analysis_port import AnalysisListener, JudgedSamples, loads_of
from cloud.service.event_messages import pushed_events
from cloud.service.metrics import AnalysisMetrics
from cloud.serving.batcher import Batcher
from cloud.serving.bounded_judge import BoundedJudge
from cloud.serving.cache import AnalysisCache
from cloud.serving.isolation import Isolation
from cloud.serving.lane import Judged
from cloud.serving.ports import Judge
from cloud.serving.replicas.replica_set import replica_set
from cloud.serving.worker import Worker
from cloud.settings import StoreLocation
from cloud.store import Store
from cloud.store.events import WrittenEvent
from cloud.store.inbox_request import Doubles
from cloud.store.registry import Registry
from shared.bundle import Bundle
from shared.errors import StorageError, VedetteError
from shared.logs import EventLog, Throttle
from shared.samples import Decision
from shared.tracing import SampleSpans

SLOW_NICENESS = 10  # requests and small samples come first where all cores are busy
STOP_WORKER_S = 0.25
WAIT_REPLICAS_S = 0.2
_LOG = EventLog("service")


class AnalysisPart:
    """Batcher with its threads and loaded bundles; implements `cloud.service.analysis_port.AnalysisPort`."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        settings: AnalysisSettings,
        location: StoreLocation,
        listener: AnalysisListener,
        *,
        load_analysis: Callable[[Bundle], Judge],
        spans: SampleSpans | None = None,
        isolation: Isolation | None = None,
    ) -> None:
        self._registry, self._settings, self._listener = registry, settings, listener
        self._metrics = AnalysisMetrics()
        self._load_here = load_analysis
        self._trusted_keys: tuple[Ed25519PublicKey, ...] = ()
        self._replicas = replica_set(settings, location, listener.on_readiness)
        self._throttle = Throttle()
        on_crash = self._metrics.worker_crashes.inc
        workers = Worker("analysis", on_crash=on_crash), Worker("decoding", on_crash=on_crash)
        slow_worker = Worker("slow-analysis", SLOW_NICENESS, on_crash=on_crash)
        slow_workers = slow_worker, Worker("slow-decoding", SLOW_NICENESS, on_crash=on_crash)
        self._workers, self._decoders = (*workers, *slow_workers), (workers[1], slow_workers[1])
        self._analyses = AnalysisCache(
            self._open_bundle,
            self._load,
            slow_worker,
            settings.cached_bundles,
            settings.cached_bytes,
        )
        self._measure()
        self._batcher = Batcher(
            store,
            self._analyses,
            workers,
            slow_workers,
            find_bundle=registry.judging_bundle_id,
            batch_size=settings.batch_size * (settings.ray.max_replicas if self._replicas else 1),
            false_alarm_rate=settings.false_alarm_rate,
            adaptive_depth=settings.adaptive_depth,
            on_judged=self._judged,
            on_doubles=self._found_doubles,
            on_failure=listener.on_failure,
            spans=spans,
            isolation=isolation,
        )

    def wake(self) -> None:
        """Start the next batch, because samples have arrived."""
        self._batcher.wake()

    def tasks(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Return the work to run until cancelled, by name."""
        parts = {"warm_up": self._warm_up(), "batcher": self._batcher.run()}
        return parts | ({"replicas": self._replicas.run()} if self._replicas else {})

    @property
    def problem(self) -> str:
        """Reason why no sample can be judged; empty otherwise."""
        return self._replicas.problem if self._replicas else ""

    @property
    def busy_s(self) -> float:
        """Seconds for which a thread has been in the same batch, or loads the same bundle; 0 while all wait.

        Where replicas judge, threads wait for them, and they are replaced by themselves: only decoding counts.
        """
        return max(worker.busy_s for worker in (self._decoders if self._replicas else self._workers))

    async def metrics_page(self) -> bytes:
        """Return the metrics of the analysis in the text format of Prometheus."""
        return self._metrics.page()

    def stop(self) -> None:
        """End the threads; waits for a running calculation only a moment."""
        for worker in self._workers:
            worker.stop(STOP_WORKER_S)
        if self._replicas:
            self._replicas.stop()

    def _measure(self) -> None:
        self._metrics.cached_bytes.set_function(lambda: self._analyses.resident_bytes)
        self._metrics.cached_bundles.set_function(lambda: len(self._analyses))
        self._metrics.replicas.set_function(lambda: self._replicas.running if self._replicas else 0)

    async def _warm_up(self) -> None:
        """Load the current bundles, so that the first sample does not wait for them."""
        while self.problem:
            await asyncio.sleep(WAIT_REPLICAS_S)
        try:
            current = await self._registry.all_current()
        except StorageError as error:
            self._listener.on_failure(error)
            return
        for entry in current[: self._settings.cached_bundles]:
            try:
                started_s = time.perf_counter()
                await self._analyses.get(entry.bundle_id)
                _LOG.info("bundle_ready", bundle=entry.bundle_id, seconds=time.perf_counter() - started_s)
            except VedetteError as error:
                self._listener.on_failure(error)

    async def _open_bundle(self, bundle_id: str) -> Bundle:
        self._trusted_keys = await self._registry.key_chain.keys()
        return await self._registry.bundle(bundle_id)

    def _load(self, bundle: Bundle) -> Judge:
        """Return the analysis of a bundle, in this process or in the replicas. Blocking."""
        if self._replicas:
            return self._replicas.judge_of(bundle, self._trusted_keys)
        return BoundedJudge(self._load_here(bundle), self._metrics.halved_batches.inc)

    def _judged(self, judged: Judged, written: Sequence[WrittenEvent], seconds: float) -> None:
        now_s = time.time()
        loads = loads_of(waiting for waiting, _ in judged)
        events = pushed_events(written) if self._listener.takes_events else []
        self._listener.on_judged(JudgedSamples(loads, events, seconds))
        for waiting, verdict in judged:
            self._metrics.verdicts.labels(verdict.decision.value).inc()
            self._metrics.verdict_seconds.observe(max(0.0, now_s - waiting.received_at_s))
            self._metrics.analyzer_scores.labels("made").inc(len(verdict.opinions))
            self._metrics.analyzer_scores.labels("left_out").inc(len(verdict.left_out))
        reasons = [verdict.reason for _, verdict in judged if verdict.decision is Decision.UNDECIDED]
        if reasons and (count := self._throttle.allow("undecided", len(reasons))):
            _LOG.warning("samples_undecided", count=count, first=reasons[0])
        bundle_id = judged[0][1].bundle_id if judged else ""
        if count := self._throttle.allow(f"judged {bundle_id}", len(judged)):
            _LOG.info("samples_judged", bundle=bundle_id, samples=count, seconds=seconds)

    def _found_doubles(self, doubles: Sequence[Doubles]) -> None:
        self._listener.on_doubles(doubles)
        for item in doubles:
            if item.foreign and (count := self._throttle.allow(f"foreign {item.device_id}", item.foreign)):
                reason = "another device has sent samples of these ids"
                _LOG.warning("samples_dropped", device_id=item.device_id, count=count, reason=reason)
