"""Spans of traced samples from their arrival to the stored verdict."""

import time
from collections.abc import Sequence

from cloud.store.judging import WaitingSample
from shared.samples import Verdict
from shared.tracing import SampleSpans


def add_verdict_spans(
    spans: SampleSpans, judged: Sequence[tuple[WaitingSample, Verdict]], analysis_s: float, storing_s: float
) -> None:
    """Add the spans of samples whose verdicts are stored by now, after an analysis and a write of these seconds."""
    stored_at_s = time.time()
    judged_at_s = stored_at_s - storing_s
    started_at_s = judged_at_s - analysis_s
    for waiting, verdict in judged:
        if not waiting.traced:
            continue
        sample_id, facts = waiting.sample_id.bytes, {"vedette.device_id": waiting.device_id}
        analysed = facts | {"vedette.bundle_id": verdict.bundle_id, "vedette.samples_in_batch": len(judged)}
        spans.add(sample_id, "waiting", waiting.received_at_s, started_at_s, facts)
        spans.add(sample_id, "analysis", started_at_s, judged_at_s, analysed)
        spans.add(sample_id, "verdict", judged_at_s, stored_at_s, facts | {"vedette.decision": verdict.decision.value})
