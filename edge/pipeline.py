"""Pipeline of one source, from its samples to the spool, on a thread of its own."""

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge.alarms import Alarm, AlarmDelivery
from edge.bundles.swap import ScreenerSlot
from edge.counters import Counters
from edge.disk import disk_error_text
from edge.normal_buffer import FOLDER, NormalBuffer
from edge.operation.latency import LatencyHistogram
from edge.operation.memory import release_memory
from edge.routing.alarm_limit import AlarmLimit
from edge.routing.budget import UploadBudget
from edge.routing.calibration_follower import CalibrationFollower
from edge.routing.forwarding import Forwarded, Forwarder
from edge.routing.miss_limit import MissLimit
from edge.routing.newest_sample import KeptSample
from edge.routing.repeats.filter import RepeatFilter
from edge.routing.repeats.snapshot import FOLDER as REPEATS
from edge.routing.router import RateMeter, Router
from edge.routing.screening_log import ScreeningLog
from edge.routing.stream_monitor import unit_of
from edge.routing.stream_watch import StreamWatch
from edge.screener import PendingScreening, ScreenedBatch, Screener, load_screener
from edge.sealing import Seal
from edge.settings import AgentSettings, RouterSettings
from edge.settings.sources import SourceSettings
from edge.sources import Source, SourceHealth, open_source
from edge.spool import Spool
from edge.tracing import SampleTraces
from edge.uplink.audit_ledger import AuditLedger
from shared.adaptive_calibration import AdaptationLimits
from shared.bundle import Bundle
from shared.errors import BundleMismatchError, DataError, VedetteError
from shared.logs import EventLog, Throttle
from shared.modalities import sample_type
from shared.samples import Rejection, SampleBatch, Verdict
from shared.status import WAITING, RunningBundle, SourceStatus

ADOPTION_TIMEOUT_S = 60.0
MAX_WITHHELD_P = 0.2  # of suspicious samples that do not count as normal until a verdict clears them

log = EventLog("pipeline")


@dataclass(frozen=True, slots=True)
class PipelineContext:
    """Components that all pipelines of an agent share."""

    settings: AgentSettings
    counters: Counters
    spool: Spool
    budget: UploadBudget
    screen_latency: LatencyHistogram
    screening_log: ScreeningLog | None
    alarms: AlarmDelivery
    buffer_seal: Seal | None
    stop: threading.Event
    audits: AuditLedger
    traces: SampleTraces | None = None


@dataclass(frozen=True, slots=True)
class _BatchInFlight:
    batch: SampleBatch
    screening: PendingScreening
    started_s: float


class Pipeline:
    """Screens one source, from its first bundle until the source ends or `stop` is set."""

    def __init__(self, source: SourceSettings, around: PipelineContext) -> None:
        self.settings, self._around = source, around
        self.state = WAITING
        self.error: VedetteError | None = None
        self._buffer: NormalBuffer | None = None
        self._slot: ScreenerSlot | None = None
        self._source: Source | None = None
        self._throttle = Throttle()
        self._warned_bundle_id = ""
        settings = around.settings
        self._router = Router(settings.router, source.id, RateMeter(source.steady_rate_per_s), around.budget)
        self._raised: list[Alarm] = []
        path = settings.state_dir / REPEATS / f"{source.id}.npz"
        self.repeats = RepeatFilter(source.id, path, settings.router, around.buffer_seal)
        self.newest = KeptSample(permitted=settings.permits_live_views)
        self._forwarder = Forwarder(
            self._router, settings.router, around.budget, self._raised.append, around.traces, self.repeats, self.newest
        )
        self._miss_limit = MissLimit(self._router, around.budget, around.audits, source.id)
        self._calibration = CalibrationFollower(source.id, settings.state_dir, settings.drift, _limits(settings))
        self._watch = StreamWatch(
            source.id,
            settings.state_dir,
            settings.router.forward_p_value,
            around.alarms,
            tests_drift=settings.drift.mode != "off",
        )
        self._thread: threading.Thread | None = None

    @property
    def ended(self) -> bool:
        """Whether the source has ended or failed."""
        return self.state in ("ended", "failed")

    @property
    def is_stuck(self) -> bool:
        """Whether the thread ended without setting a final state."""
        return self._thread is not None and not self._thread.is_alive() and not self.ended

    @property
    def health(self) -> SourceHealth:
        """Health of the source while it runs."""
        if self._source is None or self.ended:
            return SourceHealth()
        try:
            return self._source.health
        except Exception as error:  # in a plug-in: it must not end the agent's own thread
            return SourceHealth("unknown", f"its health check failed: {error!r}")

    @property
    def warning(self) -> str:
        """How the stream differs from the training data; empty while it does not."""
        return self._watch.warning

    @property
    def miss_warning(self) -> str:
        """Why `max_miss_rate` cannot be held; empty if it can."""
        return self._miss_limit.problem

    def refresh_misses(self) -> None:
        """Read the verdicts on audits, and choose the forward threshold where there is a `max_miss_rate`."""
        if self._slot is not None:
            self._miss_limit.refresh(self._slot.current.bundle_id, time.time())

    @property
    def alarm_warning(self) -> str:
        """Why the alarms of a device that sends nothing cannot be relied on; empty if they can."""
        router = self._router.settings
        if self._slot is None or self.error is not None or router.mode != "edge_only":
            return ""
        screener = self._slot.current
        rate_per_s = self._router.alarm_level.rate_per_s or self.settings.steady_rate_per_s
        limit = AlarmLimit(router.false_alarms_per_day, rate_per_s, unit_of(screener.spec))
        return limit.warning(screener.resolution)

    def _log_alarm_warning(self, screener: Screener) -> None:
        """Log once for each bundle that its calibration does not resolve the alarm threshold."""
        if screener.bundle_id != self._warned_bundle_id and (text := self.alarm_warning):
            self._warned_bundle_id = screener.bundle_id
            log.warning("alarms_not_resolved", source=self.settings.id, bundle=screener.bundle_id, finding=text)

    def apply(self, settings: RouterSettings) -> None:
        """Route with other settings from the next batch on."""
        self._router.settings = settings
        self.repeats.apply(settings)

    def learn(self, verdicts: Sequence[Verdict]) -> None:
        """Take verdicts on samples of any source."""
        self._calibration.learn(verdicts)
        self.repeats.learn(verdicts)

    def running(self) -> RunningBundle:
        """Return what the source runs now; see `BundleFollower.running`."""
        name = self.settings.bundle_name or ""
        if self._slot is None:
            return RunningBundle(source_id=self.settings.id, bundle_name=name, state=self.state)
        screener = self._slot.current
        return RunningBundle(
            source_id=self.settings.id,
            bundle_name=name or screener.bundle_name,
            bundle_id=screener.bundle_id,
            artefact=screener.artefact,
            state=self._state_words(),
            missed=self._miss_limit.status(),
        )

    def _state_words(self) -> str:
        """Return the state of the source while it runs, else that of the pipeline."""
        health = self.health
        if self.state != "running" or health.state != "running":
            return health.state if self.state == "running" else self.state
        return "differs from training" if self.warning else "running"

    def status(self) -> SourceStatus:
        """Return the state of the source for the agent's status."""
        running, health = self.running(), self.health
        return SourceStatus(
            bundle_name=running.bundle_name,
            bundle_id=running.bundle_id,
            artefact=running.artefact,
            state=self.state,
            health=health.state,
            reconnects=health.reconnects,
            skipped=health.skipped,
            left_out=dict(health.left_out),
            finding=self.warning,
            clock=health.clock,
            error=str(self.error or "") or health.detail,
            missed=self._miss_limit.status() if self._slot is not None else None,
            repeats=self.repeats.status() if self._slot is not None else None,
            adaptation=self._calibration.status(),
        )

    def begin(self, bundle: Bundle) -> None:
        """Load the first bundle, open the source and start. Raises BundleError, EngineError, DataError."""
        try:
            screener = self._load(bundle)
            around = self._around
            cursor = around.spool.cursor(self.settings.id)
            source = open_source(self.settings, screener.modality, screener.spec, around.stop, cursor)
        except DataError as error:
            self._fail(error)
            raise
        except VedetteError as error:  # the bundle's fault: another may be published
            self.error = error
            raise
        self.error = None
        self._buffer = self._open_buffer(screener)
        self._slot, self._source = (slot := ScreenerSlot(screener)), source
        self._calibration.begin(screener)
        self._watch.begin(screener)
        self.repeats.begin(screener)
        self._log_alarm_warning(screener)
        self.state = "running"
        self._thread = threading.Thread(
            target=self._run, args=(source, slot), name=f"source-{self.settings.id}", daemon=True
        )
        self._thread.start()

    def follows(self) -> bool:
        """Return whether new bundles replace the running one; a configured bundle without a name is pinned."""
        return self.settings.bundle_name is not None and self.state != "failed"

    def adopt(self, bundle: Bundle, on_trial: Callable[[], None] = lambda: None) -> bool:
        """Swap to a bundle and wait for the end of its trial; see `BundleFollower.adopt`."""
        if self._slot is None:
            self.begin(bundle)
            return True
        running = self._slot.current
        if (bundle.manifest.modality, bundle.manifest.input) != (running.modality, running.spec):
            raise BundleMismatchError(
                f"Bundle {bundle.manifest.bundle_id} wants other samples than source {self.settings.id!r} gives since "
                "its start: restart the agent to run it."
            )
        # The source may be slow: wait for an earlier offer again instead of loading the bundle again.
        swap = self._slot.awaited(bundle.manifest.bundle_id) or self._slot.offer(self._load(bundle))
        on_trial()
        passed = swap.wait(ADOPTION_TIMEOUT_S, lambda: self.ended or self._around.stop.is_set())
        if swap.screener is self._slot.current or not passed:
            self._around.counters.add({"bundle_swaps" if passed else "bundle_rollbacks": 1})
        return passed

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread; returns whether it has ended."""
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def save_state(self) -> None:
        """Write the snapshots of buffer, watch, calibration and judged samples; disk errors are logged, not raised."""
        buffer = self._buffer
        try:
            self._watch.save()
            self._calibration.save()
            self.repeats.save()
            if buffer is not None:
                buffer.save()
        except OSError as error:
            if self._throttle.allow("buffer"):
                text = disk_error_text(error, self._around.settings.state_dir)
                log.error("snapshot_failed", source=self.settings.id, error=text, advice="free some space")

    def _load(self, bundle: Bundle) -> Screener:
        batch_size = self.settings.batch_size_for(
            sample_type(bundle.manifest.modality).usual_batch_size(bundle.manifest.input)
        )
        cache_folder = self._around.settings.state_dir / "engine_cache"
        release_memory()
        screener = load_screener(bundle, self.settings.artefact, batch_size, cache_folder)
        release_memory()
        return screener

    def _open_buffer(self, screener: Screener) -> NormalBuffer | None:
        settings = self._around.settings
        if not sample_type(screener.modality).has_vectors or settings.normal_buffer.capacity == 0:
            return None
        path = settings.state_dir / FOLDER / f"{self.settings.id}.npz"
        return NormalBuffer.open(
            path,
            settings.normal_buffer.capacity,
            screener.preprocessing_id,
            screener.bundle_name,
            self._around.buffer_seal,
        )

    def _run(self, source: Source, slot: ScreenerSlot) -> None:
        try:
            try:
                self._screen_all(source, slot)
            finally:
                slot.finish()  # a new bundle is still adopted: the agent starts with it next time
                self._around.budget.release(self.settings.id)
            self.state = "ended"
            log.info("source_ended", source=self.settings.id)
        except VedetteError as error:
            self._fail(error)
        except Exception as error:  # an error of a source ends only that source
            self._fail(VedetteError(f"Source {self.settings.id!r} failed unexpectedly: {error!r}."))

    def _fail(self, error: VedetteError) -> None:
        self.error, self.state = error, "failed"
        log.error("source_failed", source=self.settings.id, error=error)

    def _screen_all(self, source: Source, slot: ScreenerSlot) -> None:
        under_way: deque[_BatchInFlight] = deque()
        try:
            for batch in source.batches():
                if slot.has_offer:
                    self._finish_down_to(0, under_way, slot)
                    slot.take_over()
                self._log_rejections(batch.rejections)
                if not len(batch):
                    self._finish_down_to(0, under_way, slot)  # a cursor must not overtake earlier batches
                    self._settle(batch, Forwarded.nothing())
                    continue
                started_s = time.perf_counter()
                under_way.append(_BatchInFlight(batch, slot.current.start(batch), started_s))
                # Overlapping batches would only delay a source with a fixed rate.
                allowed = 0 if source.is_paced else slot.current.depth - 1
                self._finish_down_to(allowed, under_way, slot)
        finally:  # batches delivered before a failure are not lost
            self._finish_down_to(0, under_way, slot)

    def _finish_down_to(self, allowed: int, under_way: deque[_BatchInFlight], slot: ScreenerSlot) -> None:
        while len(under_way) > allowed:
            item = under_way.popleft()
            self._finish(item.batch, item.screening, slot)
            latency_ms = (time.perf_counter() - item.started_s) * 1000
            self._around.screen_latency.record(latency_ms, len(item.batch))

    def _finish(self, batch: SampleBatch, under_way: PendingScreening, slot: ScreenerSlot) -> None:
        """Route one batch, spool its forwarded samples, and count all samples."""
        screener, screened = slot.result(batch, under_way)
        if screened.rejections:
            self._log_rejections([Rejection(batch.origins[place], reason) for place, reason in screened.rejections])
        screened = self._calibration.adapt(screened, screener, self._router.alarm_level.rate_per_s)
        forwarded = self._forwarder.forward(batch, screened, screener)
        self._calibration.expect(forwarded.sample_ids, forwarded.codes, self._router.audit_share)
        self._watch.judge(batch, screened, screener, forwarded.codes, self._router.alarm_level, self._raised)
        self._raised.clear()
        self._log_alarm_warning(screener)  # a measured rate is known now
        write = self._log_writer(batch, screened, forwarded)
        self._settle(batch, forwarded, len(screened.rejections), write, screener.bundle_id)
        if self._buffer is not None and screener.preprocessing_id != self._buffer.preprocessing_id:
            self._buffer = self._open_buffer(screener)  # swapped, or rolled back
        if self._buffer is not None:
            self._buffer.offer(screened.inputs, forwarded.normal, screener.graph_inputs)

    def _log_writer(
        self, batch: SampleBatch, screened: ScreenedBatch, forwarded: Forwarded
    ) -> Callable[[], None] | None:
        """Return the function that logs the batch once its routed samples are durable, or None."""
        screening_log = self._around.screening_log
        if screening_log is None:
            return None
        origins = [batch.origins[place] for place in screened.kept.tolist()]
        return lambda: screening_log.write(
            origins, screened.scores, screened.p_values, forwarded.codes, forwarded.sample_ids
        )

    def _settle(
        self,
        batch: SampleBatch,
        forwarded: Forwarded,
        rejected: int = 0,
        write: Callable[[], None] | None = None,
        bundle_id: str = "",
    ) -> None:
        """Store samples, counts and the source's cursor, in one transaction if there is a cursor; then `write`.

        Samples that are tracked are noted as of the bundle `bundle_id` once they are durable.
        """
        counts = Counter(forwarded.counts)
        counts["samples_rejected"] += len(batch.rejections) + rejected
        if forwarded.samples or forwarded.tracked or batch.cursor:
            cursors = {self.settings.id: batch.cursor} if batch.cursor else None
            after = [callback for callback in (write, batch.on_kept) if callback is not None]
            if tracked := forwarded.tracked:
                after.insert(0, lambda: self._around.audits.note(self.settings.id, bundle_id, tracked))
            self._around.spool.append(forwarded.samples, counts, after, cursors)
            return
        self._around.counters.add(counts)
        if write is not None:
            write()

    def _log_rejections(self, rejections: Sequence[Rejection]) -> None:
        count = self._throttle.allow("rejected", len(rejections)) if rejections else 0
        if count:
            first = rejections[0]
            log.warning(
                "samples_rejected", source=self.settings.id, samples=count, origin=first.origin, reason=first.reason
            )


def _limits(settings: AgentSettings) -> AdaptationLimits:
    drift = settings.drift
    return AdaptationLimits(
        memory=drift.memory_samples,
        withheld_p=min(settings.router.forward_p_value, MAX_WITHHELD_P),
        max_move=math.log(drift.max_move),
        max_unconfirmed=math.log(drift.max_unconfirmed),
    )
