"""Traces of arriving samples: which ones are kept, and their spans until they are stored."""

import threading
import time
from collections.abc import Sequence

from cloud.service.rate_limit import RateLimit
from cloud.store.inbox_request import InboxRequest
from cloud.store.ingest import Known
from shared.tracing import SampleSpans, traceparent_of
from vedette.v1 import sample_pb2


class IngestTraces:
    """Accepts the traces that devices have begun, `per_s` samples a second at most. Threads may share it."""

    def __init__(self, spans: SampleSpans, per_s: float) -> None:
        self._spans = spans
        self._limit, self._lock = RateLimit(60 * per_s, max(1, int(per_s))), threading.Lock()

    def accepted(self, messages: Sequence[sample_pb2.Sample]) -> list[bytes]:
        """Return the ids of the traced samples: each by its own traceparent, so no device adds to other traces."""
        begun = [message for message in messages if message.traceparent]
        return [message.sample_id for message in begun if self._accepts(message.sample_id, message.traceparent)]

    def _accepts(self, sample_id: bytes, traceparent: str) -> bool:
        if traceparent != traceparent_of(sample_id):
            return False
        with self._lock:
            return not self._limit.wait_s("")

    def stored(self, request: InboxRequest, known: Known) -> None:
        """Add the spans of samples that were stored by now, from their arrival on."""
        now_s, traced = time.time(), set(request.traced)
        facts = {"vedette.device_id": request.device_id, "vedette.samples_in_request": len(request.sample_ids)}
        for place, sample_id in enumerate(request.sample_ids):
            if sample_id in traced and place not in known:
                self._spans.add(sample_id, "ingest", request.received_at_s, now_s, facts)
