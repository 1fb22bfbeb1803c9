"""Collectors of spans: in memory, and a real receiver of OTLP over HTTP."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tests.webhook import Hook


@dataclass(frozen=True)
class Span:
    """One span as a collector sees it; ids are hexadecimal."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_s: float
    end_s: float
    attributes: dict[str, Any]


class Memory(SpanExporter):
    """Exporter that keeps all spans."""

    def __init__(self) -> None:
        self._lock, self._spans = threading.Lock(), list[Any]()

    def export(self, spans: Any) -> SpanExportResult:
        with self._lock:
            self._spans += spans
        return SpanExportResult.SUCCESS

    def spans(self) -> list[Span]:
        return [
            Span(
                str(span.resource.attributes["service.name"]),
                span.name,
                f"{span.context.trace_id:032x}",
                f"{span.context.span_id:016x}",
                f"{span.parent.span_id:016x}" if span.parent else "",
                span.start_time / 1e9,
                span.end_time / 1e9,
                dict(span.attributes),
            )
            for span in self._spans
        ]


class Collector:
    """A receiver of OTLP over HTTP on loopback."""

    def __init__(self) -> None:
        self._hook = Hook()
        self.endpoint = self._hook.url

    def spans(self) -> list[Span]:
        return [span for _, body in list(self._hook.requests) for span in _parsed(body)]

    def close(self) -> None:
        self._hook.close()


def _parsed(body: bytes) -> Iterator[Span]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        (service,) = [item.value.string_value for item in resource.resource.attributes if item.key == "service.name"]
        for span in (span for scope in resource.scope_spans for span in scope.spans):
            yield Span(
                service,
                span.name,
                span.trace_id.hex(),
                span.span_id.hex(),
                span.parent_span_id.hex(),
                span.start_time_unix_nano / 1e9,
                span.end_time_unix_nano / 1e9,
                {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes},
            )
