"""The agent process: its components, start, housekeeping and orderly end."""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from edge.alarms import AlarmDelivery
from edge.bundles.cache import BundleCache, first_bundle
from edge.bundles.updater import Updater
from edge.counters import Counters
from edge.disk import disk_error_text
from edge.normal_buffer import FOLDER as NORMAL_BUFFERS
from edge.normal_buffer import PURPOSE
from edge.operation.latency import LatencyHistogram
from edge.operation.metrics import MetricsServer
from edge.operation.service_manager import notify
from edge.operation.state_folder import lock_state
from edge.pipeline import Pipeline, PipelineContext
from edge.problems import counted_problems, source_problems
from edge.routing.budget import UplinkLoad, UploadBudget
from edge.routing.calibration_follower import FOLDER as CALIBRATIONS
from edge.routing.drift_watch import FOLDER as DRIFT
from edge.routing.repeats.snapshot import FOLDER as REPEATS
from edge.routing.screening_log import ScreeningLog
from edge.routing.stream_watch import FOLDER as STREAMS
from edge.sealing import Seal
from edge.settings import AgentSettings, RouterSettings
from edge.spool import Spool
from edge.tracing import SampleTraces
from edge.uplink.delivery import Delivery
from edge.uplink.events import EventReader
from edge.uplink.group_settings import FollowedSettings
from edge.uplink.identity import FOLDER as IDENTITY
from edge.uplink.identity import is_enrolled
from edge.uplink.live_views import LiveViews
from edge.uplink.meter import LinkMeter
from edge.uplink.renewal import CertificateRenewal
from edge.uplink.trust import BundleKeys
from edge.uplink.uplink import Uplink
from edge.uplink.verdicts import VerdictStore
from shared.clocks import device_clock_warning
from shared.errors import BundleError, ConnectionFailedError, DataError, SettingsError
from shared.files import remove_unfinished, write_durably
from shared.logs import EventLog, Throttle
from shared.samples import Verdict
from shared.status import (
    STATUS_FILE,
    AgentCounters,
    AgentStatus,
    BudgetStatus,
    LinkStatus,
    VerdictStatus,
)
from shared.tracing import SampleSpans

STATE_FOLDERS = NORMAL_BUFFERS, REPEATS, CALIBRATIONS, DRIFT, STREAMS
HOUSEKEEPING_S = 1.0
SOURCES_STOP_S, ALARMS_STOP_S = 2.0, 0.5

log = EventLog("agent")


class Agent:
    """All components of one device. Call `run` once, and `stop` from a signal handler or another thread."""

    def __init__(self, settings: AgentSettings) -> None:
        """Check and open everything that can fail before the first sample.

        Raises a VedetteError if settings, identity, storage or a port cannot be used.
        """
        if not settings.sources:
            raise SettingsError("The configuration names no source: add a [[sources]] table (docs/SOURCES.md).")
        self.settings = settings
        self._stop = threading.Event()
        # A signal handler may interrupt this thread while it holds the event's lock; this queue is reentrant.
        self._orders: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._state_lock = lock_state(settings.state_dir)
        for folder in (".", "bundles", *STATE_FOLDERS, "engine_cache", IDENTITY):
            remove_unfinished(settings.state_dir / folder)
        self.screen_latency, self.verdict_latency = LatencyHistogram(), LatencyHistogram()
        self._latencies = {"screen": self.screen_latency, "sample_to_verdict": self.verdict_latency}
        self._metrics = self._make_metrics()
        self.counters = Counters(settings.state_dir / "counters.json")
        set_aside = self.counters.snapshot()["spools_set_aside"]
        self._bundle_keys = BundleKeys(settings.state_dir, settings.bundle_key)
        self._cache = BundleCache(settings.state_dir / "bundles", self._bundle_keys.keys)
        self.spool = Spool(settings.state_dir / "spool.db", settings.spool, self.counters)
        self.verdicts = VerdictStore(settings.state_dir / "verdicts.db")
        self.counters.raise_to(self.verdicts.totals())
        self._counts_before = self._counts_at_start(set_aside)
        log_path = settings.screening_log.path
        self._screening_log = ScreeningLog(log_path) if log_path is not None else None
        self.alarms = AlarmDelivery(
            settings.alarms, settings.state_dir / "alarms.db", self.counters, lambda: self._device_id()
        )
        self._group = FollowedSettings(settings.state_dir, settings.router, follows=settings.group_settings)
        self.uplink: Uplink | None = None
        self.updater: Updater | None = None
        self._renewal: CertificateRenewal | None = None
        self._ends_with_sources = False  # a source that has ended is then no problem
        self.meter, self.budget = LinkMeter(), UploadBudget(settings.router)
        self._traces = self._make_traces()
        self._live_views: LiveViews | None = None
        context = self._pipeline_context()
        self.pipelines = [Pipeline(source, context) for source in settings.sources]
        self._group.on_change = self._apply
        self._apply(self._group.router)
        self.uplink = self._make_uplink()
        self._throttle = Throttle()
        self._snapshot_at_s = 0.0
        self._end_reported = False

    def stop(self) -> None:
        """Stop soon: end the sources, keep routed samples, cancel calls."""
        self._orders.put(None)

    def run(self, *, until_done: bool = False) -> None:
        """Screen until stopped, or with `until_done` until all sources ended and their verdicts arrived.

        With `until_done` raises the error of the first source that failed, or ConnectionFailedError if the spool could
        not be drained in time (its samples are kept for the next run).
        """
        self._ends_with_sources = until_done
        try:
            self._start()
            finished = self._wait(until_done)
            interrupted, awaited = self._stop.is_set(), self.verdicts.awaited()
        finally:
            self._shut_down()
        if not until_done or interrupted:
            return
        failed = next((pipeline.error for pipeline in self.pipelines if pipeline.error is not None), None)
        if failed is not None:
            raise failed
        if not finished:
            self._report_undelivered(awaited)

    def status(self) -> AgentStatus:
        """Return the status of the whole agent, as /status serves it."""
        spool, counts, meter = self.spool.status(), self.counters.snapshot(), self.meter
        link = self.uplink.status if self.uplink is not None else LinkStatus(error="the uplink is off")
        measured = {
            "address": self.uplink.address if self.uplink is not None else "",
            "throughput_bytes_per_s": round(meter.throughput_bytes_per_s),
            "round_trip_ms": round(meter.round_trip_s * 1000, 1),
        }
        return AgentStatus(
            device_id=self._device_id(),
            process_id=os.getpid(),
            written_at_s=time.time(),
            metrics_address=self._metrics.address if self._metrics is not None else "",
            mode=self.settings.router.mode,
            group_settings=self._group.group,
            counters=AgentCounters(**counts),
            spool=spool.model_copy(update={"dropped": counts["samples_dropped"]}),
            link=link.model_copy(update=measured),
            budget=BudgetStatus(bytes_per_s=round(self.budget.bytes_per_s), pressure=round(self.budget.pressure, 3)),
            verdicts=VerdictStatus(awaited=self.verdicts.awaited()),
            sources={pipeline.settings.id: pipeline.status() for pipeline in self.pipelines},
            alarms=self.alarms.status(),
            permits_live_views=self._live_views is not None and self.settings.permits_live_views,
            last_viewer=self._live_views.last_viewer if self._live_views is not None else "",
            latency_ms={name: latency.summary() for name, latency in self._latencies.items()},
            clock_offset_s=self.updater.clock_offset_s if self.updater is not None else None,
            problems=tuple(self._problems()),
        )

    def _apply(self, router: RouterSettings) -> None:
        """Route with these settings from now on."""
        self.budget.configure(router)
        for pipeline in self.pipelines:
            pipeline.apply(router)

    def _learn(self, verdicts: Sequence[Verdict]) -> None:
        """Give new verdicts to all sources; each knows the samples that it sent."""
        for pipeline in self.pipelines:
            pipeline.learn(verdicts)

    def _device_id(self) -> str:
        """Return the device id, empty before enrolment."""
        return self.uplink.identity.device_id if self.uplink is not None else ""

    def _counts_at_start(self, set_aside: int) -> dict[str, int]:
        """Return the counters before this run; a file set aside since `set_aside` is a problem of this run."""
        counts = self.counters.snapshot()
        dropped = counts["samples_dropped"] - self.spool.lost_before
        return counts | {"spools_set_aside": set_aside, "samples_dropped": dropped}

    def _pipeline_context(self) -> PipelineContext:
        key_file = self.settings.normal_buffer.key_file
        return PipelineContext(
            settings=self.settings,
            counters=self.counters,
            spool=self.spool,
            budget=self.budget,
            screen_latency=self.screen_latency,
            screening_log=self._screening_log,
            alarms=self.alarms,
            buffer_seal=Seal.from_file(key_file, PURPOSE) if key_file is not None else None,
            stop=self._stop,
            audits=self.verdicts.audits,
            traces=self._traces,
        )

    def _make_traces(self) -> SampleTraces | None:
        """Return the traces of samples, or None: no OpenTelemetry is loaded then. Raises MissingExtraError."""
        tracing = self.settings.tracing
        if not tracing.endpoint:
            return None
        return SampleTraces(SampleSpans(tracing.endpoint, "vedette-edge"), tracing.share, self._device_id)

    def _make_uplink(self) -> Uplink | None:
        """Return the uplink, or None if the mode sends nothing and the device was never enrolled."""
        settings = self.settings
        if settings.router.mode == "edge_only" and not is_enrolled(settings.state_dir):
            return None
        meter = self.meter
        delivery = Delivery(settings.uplink, self.spool, self.verdicts, meter, self._traces)
        updater = Updater(
            _version(),
            settings.uplink,
            self._cache,
            self.pipelines,
            self.spool,
            self.counters,
            self._problems,
            meter,
            self._bundle_keys,
            self._group,
            [pipeline.repeats for pipeline in self.pipelines],
        )
        self.updater = updater
        newest = {pipeline.settings.id: pipeline.newest.get for pipeline in self.pipelines}
        self._live_views = live = LiveViews(
            settings.live_view, newest, self.counters, self.budget, permitted=settings.permits_live_views
        )
        reader = EventReader(
            settings.uplink, self.verdicts, self.counters, self.verdict_latency, updater.nudge, self._learn, live.ask
        )
        self._renewal = CertificateRenewal(settings.state_dir, settings.uplink)
        uplink = Uplink(settings.state_dir, settings.uplink, [updater, reader, delivery, self._renewal, live])
        self.spool.listen(lambda: uplink.call_soon(delivery.wake))
        return uplink

    def _make_metrics(self) -> MetricsServer | None:
        address = self.settings.metrics.address
        return MetricsServer(address, self.status, self._latencies) if address else None

    def _start(self) -> None:
        """Start the sources that have a bundle, then the uplink, which fetches the other bundles."""
        self.alarms.start()
        for pipeline in self.pipelines:
            bundle = first_bundle(self._cache, pipeline.settings)
            if bundle is not None:
                with contextlib.suppress(DataError):  # its health names the error; the other sources go on
                    pipeline.begin(bundle)
                del bundle
            elif self.uplink is None:
                raise BundleError(
                    f"Source {pipeline.settings.id!r} has no bundle, and the uplink is off: set its bundle, or enrol."
                )
            else:
                log.info("waiting_for_bundle", source=pipeline.settings.id, name=pipeline.settings.bundle_name)
        if self._metrics is not None:
            self._metrics.start()
        if self.uplink is not None:
            self.uplink.start()
        log.info(
            "started",
            device_id=self._device_id(),
            sources=len(self.pipelines),
            spooled=self.spool.status().samples,
            metrics=self._metrics.address if self._metrics is not None else "off",
        )
        self._housekeeping()
        notify("READY=1")

    def _wait(self, until_done: bool) -> bool:
        """Wait for the end; returns whether all work was done."""
        drain_ends_s: float | None = None
        while True:
            with contextlib.suppress(queue.Empty):
                self._orders.get(timeout=HOUSEKEEPING_S if not until_done else HOUSEKEEPING_S / 4)
                self._stop.set()
                return False
            self._housekeeping()
            if not all(pipeline.ended for pipeline in self.pipelines):
                continue
            if not until_done:
                self._report_end()
                continue
            if self._is_drained():
                return True
            drain_ends_s = drain_ends_s or time.monotonic() + self.settings.drain_timeout_s
            if time.monotonic() > drain_ends_s:
                return False

    def _report_end(self) -> None:
        """Log once that no source is left: the agent stays for its spool, its verdicts and new key sets."""
        if self.pipelines and not self._end_reported:
            self._end_reported = True
            log.warning("all_sources_ended", advice="stop the agent; with --until-done it ends by itself")

    def _is_drained(self) -> bool:
        return self.uplink is None or (self.spool.is_empty() and self.verdicts.awaited() == 0)

    def _housekeeping(self) -> None:
        """Fit the budget to the link, and write status, counters and, less often, normal buffers.

        Disk errors are logged, not raised. The service manager is notified while the essential threads run.
        """
        if self.spool.is_alive and not any(pipeline.is_stuck for pipeline in self.pipelines):
            notify("WATCHDOG=1")
        spool, meter = self.spool.status(), self.meter
        self.budget.follow(
            UplinkLoad(
                bytes=spool.bytes,
                spool_share=spool.bytes / self.settings.spool.max_bytes,
                connected=self.uplink is not None and self.uplink.status.connected,
                throughput_bytes_per_s=meter.throughput_bytes_per_s,
                round_trip_s=meter.round_trip_s,
            )
        )
        for pipeline in self.pipelines:
            pipeline.refresh_misses()
        try:
            self.counters.save()
            write_durably(self.settings.state_dir / STATUS_FILE, self.status().to_json())
        except OSError as error:
            if self._throttle.allow("status"):
                text = disk_error_text(error, self.settings.state_dir)
                log.error("status_not_written", error=text, advice="free some space")
        now_s = time.monotonic()
        if now_s - self._snapshot_at_s >= self.settings.normal_buffer.snapshot_every_s:
            self._snapshot_at_s = now_s
            for pipeline in self.pipelines:
                pipeline.save_state()

    def _shut_down(self) -> None:
        """Stop the components in the order of the data flow, each within its timeout."""
        notify("STOPPING=1")
        self._stop.set()
        end_s = time.monotonic() + SOURCES_STOP_S
        late = [item.settings.id for item in self.pipelines if not item.join(max(0.0, end_s - time.monotonic()))]
        if late:
            log.warning("sources_not_stopped", sources=",".join(late), advice="their batch under way is lost")
        if self.uplink is not None:
            self.uplink.stop()
        self.alarms.stop(ALARMS_STOP_S)
        for pipeline in self.pipelines:
            pipeline.save_state()
        self.spool.close()
        if self._screening_log is not None:
            self._screening_log.close()
        self._housekeeping()
        if self._metrics is not None:
            self._metrics.stop()
        if self._traces is not None:
            self._traces.close()
        self.verdicts.close()
        self._state_lock.release()
        log.info("stopped", spooled=self.spool.status().samples)

    def _problems(self) -> list[str]:
        """Return short texts for an operator: present problems, and those counted since this start."""
        updater, may_end = self.updater, self._ends_with_sources or self._stop.is_set()
        clock = device_clock_warning(updater.clock_offset_s if updater is not None else None)
        refused = f"group settings: {self._group.refusal}" if self._group.refusal else ""
        problems = [text for text in (clock, self._bundle_keys.problem, refused, self._renewal_problem()) if text]
        published = updater.published if updater is not None else None
        for pipeline in self.pipelines:
            problems += source_problems(pipeline, published, may_end=may_end)
        if shortage := self.budget.shortage():
            problems.append(f"audits: {shortage}")
        sinks = self.alarms.status().items()
        problems += [f"alarms to {name}: {sink.error}" for name, sink in sinks if sink.error]
        if error := self.spool.status().error:
            problems.append(f"spool: {error}")
        return problems + counted_problems(self.counters.snapshot(), self._counts_before)

    def _renewal_problem(self) -> str:
        return self._renewal.problem if self._renewal is not None else ""

    def _report_undelivered(self, awaited: int) -> None:
        left = self.spool.status().samples
        if left:
            reason = self.uplink.status.error if self.uplink is not None else ""
            raise ConnectionFailedError(
                f"{left} samples are still in the spool after {self.settings.drain_timeout_s:.0f} s"
                f"{f' ({reason})' if reason else ''}; they are kept, and sent when the agent runs again."
            )
        log.warning("verdicts_missing", samples=awaited, advice="they are read when the agent runs again")


def _version() -> str:
    try:
        return version("vedette")
    except PackageNotFoundError:
        return "unknown"
