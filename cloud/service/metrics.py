"""Metrics of the service for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0)


class Metrics:
    """Metrics of one service process in their own registry, without those of the analysis."""

    def __init__(self, role: str = "all") -> None:
        self._all = CollectorRegistry()
        Info("vedette_process", "Role of this process.", registry=self._all).info({"role": role})
        self.samples = Counter("vedette_samples", "Samples received, by answer.", ["status"], registry=self._all)
        self.payload_bytes = Counter("vedette_payload_bytes", "Bytes of stored payloads.", registry=self._all)
        self.refused_requests = Counter(
            "vedette_refused_requests", "Refused requests, by reason.", ["reason"], registry=self._all
        )
        self.submit_seconds = Histogram(
            "vedette_submit_seconds", "Seconds from a request to its answer.", buckets=_SECONDS, registry=self._all
        )
        self.backlog = Gauge("vedette_backlog_samples", "Samples that wait for their verdict.", registry=self._all)
        self.watches = Gauge("vedette_watches", "Open event streams.", registry=self._all)
        self.heartbeats = Counter("vedette_heartbeats", "Heartbeats of devices.", registry=self._all)
        self.errors = Counter("vedette_errors", "Errors in the background, by part.", ["part"], registry=self._all)
        self.leads = Gauge(
            "vedette_housekeeping", "1 while this process does the housekeeping of the service.", registry=self._all
        )
        self.rollout_stage = Gauge(
            "vedette_rollout_stage", "Stage of each rollout under way, from 1.", ["bundle"], registry=self._all
        )
        self.rollouts = Counter("vedette_rollouts", "Ended rollouts, by phase.", ["phase"], registry=self._all)

    def page(self) -> bytes:
        """Return the exposition text."""
        return generate_latest(self._all)


class AnalysisMetrics:
    """Metrics of the analysis in their own registry."""

    def __init__(self) -> None:
        self._all = CollectorRegistry()
        self.verdicts = Counter("vedette_verdicts", "Verdicts, by decision.", ["decision"], registry=self._all)
        self.verdict_seconds = Histogram(
            "vedette_verdict_seconds",
            "Seconds from storing a sample to storing its verdict.",
            buckets=_SECONDS,
            registry=self._all,
        )
        self.worker_crashes = Counter(
            "vedette_worker_crashes",
            "Threads of the analysis that ended in a call and were replaced.",
            registry=self._all,
        )
        self.halved_batches = Counter(
            "vedette_halved_batches", "Batches halved because memory was used up.", registry=self._all
        )
        self.analyzer_scores = Counter(
            "vedette_analyzer_scores",
            "Scores of analyzers: made, or left out because they could not change the decision.",
            ["state"],
            registry=self._all,
        )
        self.cached_bundles = Gauge(
            "vedette_cached_bundles", "Bundles whose analysis is in memory.", registry=self._all
        )
        self.cached_bytes = Gauge(
            "vedette_cached_bundle_bytes", "Bytes of the tensors and arrays of these analyses.", registry=self._all
        )
        self.replicas = Gauge(
            "vedette_analysis_replicas", "Running replicas of the analysis on a Ray cluster.", registry=self._all
        )

    def page(self) -> bytes:
        """Return the exposition text."""
        return generate_latest(self._all)
