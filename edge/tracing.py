"""Traces of a device's samples: their first spans, and the context that travels with each sample."""

import time
from collections.abc import Callable, Iterable

from edge.spool_store import SpooledSample
from shared.tracing import SampleSpans, is_traced, traceparent_of
from vedette.v1 import sample_pb2


class SampleTraces:
    """Traces of a random share of the samples that are sent; `device_id` is asked for each span."""

    def __init__(self, spans: SampleSpans, share: float, device_id: Callable[[], str]) -> None:
        self._spans, self._share, self._device_id = spans, share, device_id

    def begin(self, message: sample_pb2.Sample) -> None:
        """Mark a sample that is traced, and add its root span: from the capture to this moment."""
        sample_id = message.sample_id
        message.traceparent = traceparent_of(sample_id) if is_traced(sample_id, self._share) else ""
        if not message.traceparent:
            return
        screening, captured_at = message.screening, message.captured_at
        self._spans.add_root(
            sample_id,
            "screened",
            captured_at.seconds + captured_at.nanos / 1e9,
            time.time(),
            {
                "vedette.device_id": self._device_id(),
                "vedette.source_id": message.source_id,
                "vedette.bundle_id": screening.bundle_id,
                "vedette.route": sample_pb2.Route.Name(screening.route)[6:].lower(),
            },
        )

    def delivered(self, samples: Iterable[SpooledSample], sent_s: float) -> None:
        """Add the time in the spool, and the time of the request that was sent at `sent_s` and is answered now."""
        now_s = time.time()
        for sample in samples:
            sample_id = sample.sample_id
            # Spooled by an earlier run with another share: the message tells whether its trace has begun.
            if is_traced(sample_id, self._share) and traceparent_of(sample_id).encode() in sample.data:
                device = {"vedette.device_id": self._device_id()}
                self._spans.add(sample_id, "spooled", int.from_bytes(sample_id[:6]) / 1000, sent_s, device)
                self._spans.add(sample_id, "uplink", sent_s, now_s, device)

    def close(self) -> None:
        """Send the spans that wait."""
        self._spans.close()
