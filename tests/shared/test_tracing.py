"""Ids and shares of traces, and spans that a dead collector or a full queue does not delay."""

import subprocess
import sys
import time

import pytest
from pydantic import ValidationError

from shared.samples import new_sample_ids
from shared.tracing import CLOSE_TIMEOUT_S, SampleSpans, TracingSettings, is_traced, traceparent_of
from tests.spans import Memory


def test_the_traced_share_is_that_of_the_settings_and_grows_with_it():
    ids = [sample_id.bytes for sample_id in new_sample_ids(4000)]
    few, many = ({item for item in ids if is_traced(item, share)} for share in (0.05, 0.5))
    assert few < many
    assert len(few) == pytest.approx(200, rel=0.4)
    assert len(many) == pytest.approx(2000, rel=0.1)
    assert all(is_traced(item, 1.0) for item in ids)
    assert not any(is_traced(item, 0.0) for item in ids)


def test_the_root_has_the_ids_of_its_traceparent_and_the_others_are_below_it():
    memory = Memory()
    spans = SampleSpans("http://127.0.0.1:9/v1/traces", "vedette-edge", memory)
    first, second = (sample_id.bytes for sample_id in new_sample_ids(2))
    for sample_id in (first, second):
        spans.add_root(sample_id, "screened", 100.0, 101.0, {"vedette.source_id": "lab"})
        spans.add(sample_id, "spooled", 101.0, 102.5)
    spans.add(first, "uplink", 104.0, 103.0)  # a clock that was set back
    spans.close()
    found = memory.spans()
    for sample_id in (first, second):
        version, trace_id, parent_id, flags = traceparent_of(sample_id).split("-")
        assert (version, flags) == ("00", "01")
        root, *below = [span for span in found if span.trace_id == trace_id]
        assert (root.name, root.span_id, root.parent_id) == ("screened", parent_id, "")
        assert {span.parent_id for span in below} == {parent_id}
    assert len({span.span_id for span in found}) == len(found) == 5
    assert [(span.start_s, span.end_s) for span in found if span.name == "uplink"] == [(103.0, 103.0)]


def test_a_collector_that_refuses_is_one_line_in_the_log_and_holds_up_no_end(caplog):
    class Refusing(Memory):
        def export(self, spans):
            super().export(spans)
            return type("Result", (), {"name": "FAILURE"})

    class Hanging(Memory):
        def export(self, spans):
            time.sleep(30)

    caplog.set_level("WARNING", logger="vedette")
    spans = SampleSpans("http://127.0.0.1:9/v1/traces", "vedette-edge", Refusing())
    (sample_id,) = new_sample_ids(1)
    for _ in range(3):
        spans.add(sample_id.bytes, "uplink", 1.0, 2.0)
        spans.flush()
    spans.close()
    (record,) = caplog.records
    assert record.getMessage() == "spans_not_sent"
    spans = SampleSpans("http://127.0.0.1:9/v1/traces", "vedette-edge", Hanging())
    spans.add(sample_id.bytes, "uplink", 1.0, 2.0)
    started_s = time.monotonic()
    spans.close()
    assert time.monotonic() - started_s < CLOSE_TIMEOUT_S + 1.0


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://collector/v1/traces", "http://me:secret@collector/"])
def test_an_endpoint_that_is_none_or_holds_a_secret_is_refused(endpoint):
    with pytest.raises(ValidationError, match=r"write http|OTEL_EXPORTER_OTLP_HEADERS"):
        TracingSettings(endpoint=endpoint)


def test_without_an_endpoint_opentelemetry_is_not_loaded():
    code = (
        "import sys, edge.agent, cloud.service.detection, cloud.store.judging; sys.exit('opentelemetry' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
