"""Traces of single samples, from the capture to the verdict (OpenTelemetry).

The trace id of a sample is its sample id, and its root span has the last half of it as id. Both sides can thus add
spans without any state, and a device cannot add to the trace of another one's sample. OpenTelemetry is imported only
where an endpoint is set.
"""

import logging
import random
import threading
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from shared.errors import MissingExtraError
from shared.logs import EventLog, Throttle
from shared.settings import Settings

EXPORT_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 1.0
_ID_BITS = 62  # random ones at the end of a UUIDv7
_log = EventLog("tracing")


def _check_endpoint(text: str) -> str:
    if not text:
        return text
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("write http://HOST:4318/v1/traces, or leave it empty: no traces")
    if "@" in url.netloc:
        raise ValueError("leave the credentials out: give them in OTEL_EXPORTER_OTLP_HEADERS")
    return text


class TracingSettings(Settings):
    """Traces of single samples, sent to a collector."""

    endpoint: Annotated[str, AfterValidator(_check_endpoint)] = Field(
        default="",
        title="Collector",
        description="URL for traces of an OpenTelemetry collector, OTLP over HTTP; empty: no traces",
    )


def is_traced(sample_id: bytes, share: float) -> bool:
    """Return whether a sample belongs to the traced share: a function of its random id."""
    return int.from_bytes(sample_id[8:]) & ((1 << _ID_BITS) - 1) < share * (1 << _ID_BITS)


def traceparent_of(sample_id: bytes) -> str:
    """Return the W3C traceparent of a sample: the context of its root span."""
    return f"00-{sample_id.hex()}-{sample_id[8:].hex()}-01"


class SampleSpans:
    """Spans of samples, sent in batches by a thread of its own; spans beyond its queue are dropped.

    `service` names the sender. `exporter` replaces that to `endpoint`. Raises MissingExtraError.
    """

    def __init__(self, endpoint: str, service: str, exporter: Any = None) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ALWAYS_ON

            if exporter is None:
                from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

                exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_TIMEOUT_S)
        except ImportError as error:
            raise MissingExtraError(
                f"tracing.endpoint needs {error.name!r}: pip install 'vedette[tracing]', or leave it empty."
            ) from None
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # `_ReportingExporter` reports what fails
        self._api = trace
        self._ids = _GivenIds()
        self._exporter = _ReportingExporter(exporter, endpoint)
        # The provider would wait for a dead collector at exit: `close` bounds that time.
        self._provider = TracerProvider(
            ALWAYS_ON, Resource.create({"service.name": service}), shutdown_on_exit=False, id_generator=self._ids
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("vedette")

    def add(
        self, sample_id: bytes, name: str, start_s: float, end_s: float, attributes: Mapping[str, Any] | None = None
    ) -> None:
        """Add a span below the root span of a sample; times are seconds since the epoch."""
        api, root = self._api, int.from_bytes(sample_id[8:])
        context = api.SpanContext(int.from_bytes(sample_id), root, True, api.TraceFlags(api.TraceFlags.SAMPLED))
        self._end(name, api.set_span_in_context(api.NonRecordingSpan(context)), start_s, end_s, attributes)

    def add_root(
        self, sample_id: bytes, name: str, start_s: float, end_s: float, attributes: Mapping[str, Any] | None = None
    ) -> None:
        """Add the root span of a sample; times are seconds since the epoch."""
        self._ids.next_root(sample_id)
        self._end(name, self._api.set_span_in_context(self._api.INVALID_SPAN), start_s, end_s, attributes)

    def flush(self) -> None:
        """Send the spans that wait. Blocking."""
        self._provider.force_flush()

    def close(self) -> None:
        """Send the spans that wait, for at most CLOSE_TIMEOUT_S, and end."""
        ending = threading.Thread(target=self._provider.shutdown, name="tracing-end", daemon=True)
        ending.start()
        ending.join(CLOSE_TIMEOUT_S)

    def _end(self, name: str, parent: Any, start_s: float, end_s: float, attributes: Mapping[str, Any] | None) -> None:
        start_ns, end_ns = int(min(start_s, end_s) * 1e9), int(end_s * 1e9)
        self._tracer.start_span(name, parent, start_time=start_ns, attributes=attributes).end(end_ns)


class _GivenIds:
    """Source of the ids of spans: those of a sample for its root span, else random ones."""

    def __init__(self) -> None:
        self._local = threading.local()

    def next_root(self, sample_id: bytes) -> None:
        """Give the next span of this thread the ids of a sample."""
        self._local.sample_id = sample_id

    def generate_trace_id(self) -> int:
        """Return the id of a new trace; called before `generate_span_id`."""
        return int.from_bytes(self._local.sample_id)

    def generate_span_id(self) -> int:
        """Return the id of a new span."""
        sample_id = self._local.__dict__.pop("sample_id", None)
        return int.from_bytes(sample_id[8:]) if sample_id else random.getrandbits(64) or 1

    def is_trace_id_random(self) -> bool:
        """Return whether the end of a trace id is random: 62 bits of a UUIDv7 are."""
        return True


class _ReportingExporter:
    """Exporter that reports failures in the log, one line in 10 s; the spans of a failed export are lost."""

    def __init__(self, exporter: Any, endpoint: str) -> None:
        self._exporter, self._endpoint = exporter, endpoint
        self._throttle = Throttle()

    def export(self, spans: Sequence[Any]) -> Any:
        """Send spans."""
        result = self._exporter.export(spans)
        if result.name != "SUCCESS" and (count := self._throttle.allow("export", len(spans))):
            _log.warning("spans_not_sent", spans=count, endpoint=self._endpoint, advice="start the collector there")
        return result

    def shutdown(self) -> None:
        """End the exporter, and a retry of it that waits."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what the exporter holds."""
        return bool(self._exporter.force_flush(timeout_millis))
