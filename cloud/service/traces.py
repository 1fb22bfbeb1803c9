"""Traces of arriving samples: which ones are kept, and their spans until they are stored."""

import threading
import time
from collections.abc import Sequence

from cloud.service.rate_limit import RateLimit
from cloud.store.ingest import IngestStatus
from cloud.store.sample_rows import TRACED, Row
from shared.tracing import SampleSpans, traceparent_of


class IngestTraces:
    """Accepts the traces that devices have begun, `per_s` samples a second at most. Threads may share it."""

    def __init__(self, spans: SampleSpans, per_s: float) -> None:
        self._spans = spans
        self._limit, self._lock = RateLimit(60 * per_s, max(1, int(per_s))), threading.Lock()

    def accepts(self, sample_id: bytes, traceparent: str) -> bool:
        """Return whether a sample is traced: only by its own traceparent, so no device adds to other traces."""
        if traceparent != traceparent_of(sample_id):
            return False
        with self._lock:
            return not self._limit.wait_s("")

    def stored(
        self, device_id: str, received_at_s: float, rows: Sequence[Row], outcomes: Sequence[IngestStatus]
    ) -> None:
        """Add the spans of samples that were stored by now, from their arrival on."""
        now_s = time.time()
        for row, outcome in zip(rows, outcomes, strict=True):
            if row[0][TRACED] and outcome is IngestStatus.STORED:
                facts = {"vedette.device_id": device_id, "vedette.samples_in_request": len(rows)}
                self._spans.add(row[0][0], "ingest", received_at_s, now_s, facts)
