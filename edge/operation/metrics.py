"""Local HTTP endpoint: /metrics for Prometheus, /health for a supervisor, /status for people and programs."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from edge.operation.inspection import source_state
from edge.operation.latency import LatencyHistogram
from shared.addresses import Address
from shared.errors import PortInUseError
from shared.status import AgentStatus

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MetricsServer:
    """HTTP server on a thread of its own."""

    def __init__(self, address: str, status: Callable[[], AgentStatus], latencies: dict[str, LatencyHistogram]) -> None:
        """Listen on `address` (host:port); raises PortInUseError if that is not possible."""
        registry = CollectorRegistry()
        registry.register(_AgentCollector(status, latencies))
        listen = Address.parse(address)
        handler = _handler(status, registry)
        try:
            self._server = ThreadingHTTPServer((listen.host, listen.port), handler)
        except OSError as error:
            raise PortInUseError(
                f"{address}: cannot listen there ({error.strerror or error}). Set another metrics.address, or port 0."
            ) from None
        self._server.daemon_threads = True
        self.address = str(Address(listen.host, int(self._server.server_address[1])))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="metrics", daemon=True)

    def start(self) -> None:
        """Start to answer requests."""
        self._thread.start()

    def stop(self) -> None:
        """Stop to answer requests."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class _AgentCollector(Collector):
    """Status of the agent as Prometheus metrics."""

    def __init__(self, status: Callable[[], AgentStatus], latencies: dict[str, LatencyHistogram]) -> None:
        self._status, self._latencies = status, latencies

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, as of now."""
        status = self._status()
        for name, value in status.counters.model_dump().items():
            yield CounterMetricFamily(
                f"vedette_edge_{name}", f"{name.replace('_', ' ')} since the state was made", value
            )
        for name in ("samples", "bytes", "pending"):
            yield GaugeMetricFamily(
                f"vedette_edge_spool_{name}", f"{name} in the spool now", getattr(status.spool, name)
            )
        yield GaugeMetricFamily("vedette_edge_spool_failed", "1 while the disk refuses", bool(status.spool.error))
        yield GaugeMetricFamily("vedette_edge_link_connected", "1 while connected", status.link.connected)
        link, budget = status.link, status.budget
        for name, text, value in (
            ("link_bytes_per_second", "measured throughput of the link; 0 while unknown", link.throughput_bytes_per_s),
            ("link_round_trip_seconds", "round trip of a small request; 0 while unknown", link.round_trip_ms / 1000),
            ("budget_bytes_per_second", "bytes that may enter the spool; 0: no limit", budget.bytes_per_s),
            ("budget_pressure", "fill of the queue in time or in bytes, 1 when full", budget.pressure),
        ):
            yield GaugeMetricFamily(f"vedette_edge_{name}", text, value)
        sources = GaugeMetricFamily(
            "vedette_edge_source_running",
            "1 while the source delivers samples",
            labels=["source", "bundle", "artefact"],
        )
        for name, source in status.sources.items():
            sources.add_metric([name, source.bundle_id, source.artefact], float(source.is_running))
        yield sources
        yield from _findings(status)
        yield from _misses(status)
        for name, text in (
            ("reconnects", "lost connections that were restored"),
            ("skipped", "samples that were skipped"),
        ):
            family = CounterMetricFamily(f"vedette_edge_source_{name}", f"{text}, since the start", labels=["source"])
            for source_id, source in status.sources.items():
                family.add_metric([source_id], getattr(source, name))
            yield family
        for name, latency in self._latencies.items():
            count, total_ms = latency.totals()
            yield SummaryMetricFamily(
                f"vedette_edge_{name}_seconds", f"latency of {name.replace('_', ' ')}", count, total_ms / 1000
            )


def _misses(status: AgentStatus) -> Iterator[Metric]:
    """Yield the bound on missed anomalies of each source and its bundle, with the audits that it rests on."""
    labels = ["source", "bundle"]
    bound = GaugeMetricFamily(
        "vedette_edge_missed_share_at_most",
        "upper bound (95 %) of the share of anomalies among the accepted samples; 1 without an audit",
        labels=labels,
    )
    audits = GaugeMetricFamily("vedette_edge_audits", "audits of the bundle", labels=[*labels, "decision"])
    share = GaugeMetricFamily("vedette_edge_audit_share", "probability of an audit in force", labels=labels)
    forwarded = GaugeMetricFamily("vedette_edge_forward_p_value", "p-value of forwarding in force", labels=labels)
    for name, source in status.sources.items():
        if (missed := source.missed) is None:
            continue
        of = [name, source.bundle_id]
        bound.add_metric(of, 1.0 if missed.at_most_share is None else missed.at_most_share)
        normal = missed.audits - missed.anomalous - missed.unknown
        for decision, count in (("normal", normal), ("anomalous", missed.anomalous), ("unknown", missed.unknown)):
            audits.add_metric([*of, decision], count)
        share.add_metric(of, missed.audit_share)
        forwarded.add_metric(of, missed.forward_p_value)
    yield from (bound, audits, share, forwarded)


def _findings(status: AgentStatus) -> Iterator[Metric]:
    """Yield streams that differ from the training data, records that were left out, and the clock."""
    differs = GaugeMetricFamily(
        "vedette_edge_source_differs_from_training",
        "1 while alarms or forwarded samples are far more frequent than expected",
        labels=["source"],
    )
    left_out = CounterMetricFamily(
        "vedette_edge_source_left_out", "readings and records left out, since the start", labels=["source", "reason"]
    )
    factor = GaugeMetricFamily(
        "vedette_edge_source_p_value_factor", "adapted p-values over those of training", labels=["source", "mode"]
    )
    frozen = GaugeMetricFamily(
        "vedette_edge_source_calibration_frozen", "1 while adapted p-values are frozen", labels=["source"]
    )
    for name, source in status.sources.items():
        factor.add_metric([name, source.adaptation.mode], source.adaptation.factor)
        frozen.add_metric([name], float(source.adaptation.frozen))
        differs.add_metric([name], float(bool(source.finding)))
        for reason, count in source.left_out.items():
            left_out.add_metric([name, reason], count)
    yield differs
    yield factor
    yield frozen
    yield left_out
    if status.clock_offset_s is not None:
        text = "clock of the device minus that of the service"
        yield GaugeMetricFamily("vedette_edge_clock_offset_seconds", text, status.clock_offset_s)


def _handler(status: Callable[[], AgentStatus], registry: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            """Answer one request."""
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, _METRICS_TYPE, generate_latest(registry))
            elif path == "/status":
                self._answer(200, "application/json", status().to_json())
            elif path == "/health":
                now = status()
                problems = list(now.problems)
                states = {name: source_state(source) for name, source in now.sources.items()}
                health = {"healthy": not problems, "problems": problems, "sources": states}
                self._answer_json(503 if problems else 200, health)
            else:
                self._answer_json(404, {"error": "available: /metrics, /health and /status"})

        def _answer_json(self, code: int, value: object) -> None:
            self._answer(code, "application/json", json.dumps(value).encode())

        def _answer(self, code: int, content_type: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: requests are not events."""

    return Handler
