"""Processor time that traces add to the check of a sample at the service, and to the packing of a sample on a device.

Microseconds of processor time for a row of 8 values, the median of several rounds in one process. `off`: no collector
is set. `unmarked`: a collector is set, and no sample is traced. `marked`: every sample is traced. The exporter drops
the spans; the thread that calls it is counted.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from cloud.bench.workloads import WORKLOADS
from cloud.service.bundle_rules import BundleRule
from cloud.service.sample_check import SharedFields, check_fields
from cloud.service.traces import IngestTraces
from edge.tracing import SampleTraces
from shared.tracing import SampleSpans, traceparent_of

BUNDLE_ID = "bench-1-00000000"
ROUNDS, REPEATS = 7, 40
UNBOUNDED_PER_S = 1e9


class _Dropping:
    """Exporter that drops all spans."""

    def export(self, spans: Sequence[Any]) -> Any:
        from opentelemetry.sdk.trace.export import SpanExportResult

        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


def run(quick: bool = False) -> dict[str, Any]:
    kind = WORKLOADS[1]
    messages = kind.request(BUNDLE_ID, 0).samples
    rules, known = {BUNDLE_ID: BundleRule(kind.modality, kind.spec)}, SharedFields()
    spans = SampleSpans("http://127.0.0.1:9/v1/traces", "benchmark", _Dropping())
    ingest, device = IngestTraces(spans, UNBOUNDED_PER_S), SampleTraces(spans, 1.0, lambda: "device")
    no_share = SampleTraces(spans, 0.0, lambda: "device")

    def check(traces: IngestTraces | None) -> None:
        check_fields(messages, rules, known)
        if traces is not None:
            traces.accepted(messages)

    def pack(traces: SampleTraces | None) -> None:
        for message in messages:
            if traces is not None:
                traces.begin(message)
            message.SerializeToString()

    def mark(*, all_of_them: bool) -> None:
        for message in messages:
            message.traceparent = traceparent_of(message.sample_id) if all_of_them else ""

    rounds, repeats = (1, 2) if quick else (ROUNDS, REPEATS)
    times: dict[str, dict[str, list[float]]] = {"check_us": {}, "pack_us": {}}

    def measure(part: str, name: str, work: Callable[[], None]) -> None:
        started_s = time.process_time()
        for _ in range(repeats):
            work()
        seconds = (time.process_time() - started_s) / (repeats * len(messages))
        times[part].setdefault(name, []).append(seconds * 1e6)

    for _ in range(rounds):
        mark(all_of_them=False)
        measure("check_us", "off", lambda: check(None))
        measure("check_us", "unmarked", lambda: check(ingest))
        measure("pack_us", "off", lambda: pack(None))
        measure("pack_us", "unmarked", lambda: pack(no_share))
        measure("pack_us", "marked", lambda: pack(device))
        mark(all_of_them=True)
        measure("check_us", "marked", lambda: check(ingest))
    spans.close()
    return {part: {name: statistics.median(runs) for name, runs in found.items()} for part, found in times.items()}
