"""Traces begin where samples are packed, without a change of what is sent."""

import numpy as np
import pytest

from edge.routing.packing import LOSSLESS, pack
from edge.routing.router import FORWARD, Routing
from edge.screener import load_screener
from edge.tracing import SampleTraces
from shared.modality import Modality
from shared.samples import SampleBatch
from shared.tracing import SampleSpans, is_traced, traceparent_of
from tests.edge.bundles import normal_rows, tabular_bundle
from tests.spans import Memory
from vedette.v1 import sample_pb2


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_packed_samples_is_marked_and_has_a_root_span(share, signing_key, tmp_path):
    screener = load_screener(tabular_bundle(signing_key), "int8_onnxruntime", 64, tmp_path)
    count = 64
    batch = SampleBatch(
        source_id="lab",
        modality=Modality.TABULAR,
        values=normal_rows(count),
        captured_at_s=np.full(count, 1_700_000_000.0),
        origins=[f"readings.csv:{number}" for number in range(count)],
    )
    screened = screener.screen(batch)
    routing = Routing(
        np.full(count, FORWARD, np.int8), np.ones(count, np.bool_), np.zeros(count, np.bool_), np.zeros(count)
    )
    memory = Memory()
    spans = SampleSpans("http://127.0.0.1:9/v1/traces", "vedette-edge", memory)
    packed = pack(batch, screened, routing, screener, LOSSLESS, SampleTraces(spans, share, lambda: "press-07"))
    spans.close()
    messages = [sample_pb2.Sample.FromString(item.data) for item in packed.samples]
    assert len(messages) == count
    for message in messages:
        expected = traceparent_of(message.sample_id) if is_traced(message.sample_id, share) else ""
        assert message.traceparent == expected
    marked = {message.sample_id.hex() for message in messages if message.traceparent}
    found = memory.spans()
    assert {span.trace_id for span in found} == marked
    assert len(found) == len(marked)
    assert (not marked) == (share == 0.0)
    for span in found:
        assert span.name == "screened"
        assert span.start_s == 1_700_000_000.0
        assert span.attributes["vedette.device_id"] == "press-07"
        assert span.attributes["vedette.route"] == "forward"
