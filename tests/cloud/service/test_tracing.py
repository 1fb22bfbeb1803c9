"""The spans of a sample, from its capture on a device to its verdict, at a collector."""

import asyncio
import time
from functools import partial

import pytest

from cloud.service.traces import IngestTraces
from edge.counters import Counters
from edge.settings import SpoolSettings, UplinkSettings
from edge.spool import Spool
from edge.spool_store import NewSample
from edge.tracing import SampleTraces
from edge.uplink.delivery import Delivery
from edge.uplink.enrolment import enroll
from edge.uplink.meter import LinkMeter
from edge.uplink.uplink import Uplink
from edge.uplink.verdicts import VerdictStore
from shared.samples import new_sample_ids
from shared.tracing import SampleSpans, traceparent_of
from tests.cloud.service.harness import message, running, settings_for
from tests.spans import Collector, Memory
from vedette.v1 import sample_pb2

STEPS = {
    "screened": "vedette-edge",
    "spooled": "vedette-edge",
    "uplink": "vedette-edge",
    "ingest": "vedette-cloud",
    "waiting": "vedette-cloud",
    "analysis": "vedette-cloud",
    "verdict": "vedette-cloud",
}


@pytest.fixture(params=["memory", "otlp"])
def collector(request, monkeypatch):
    """Where both sides send their spans: into memory, or to a real receiver on loopback."""
    if request.param == "otlp":
        pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="install the extra tracing")
        receiver = Collector()
        yield receiver
        receiver.close()
        return
    memory = Memory()
    memory.endpoint = "http://127.0.0.1:9/v1/traces"
    spans = partial(SampleSpans, exporter=memory)
    for module in ("cloud.service.process", __name__):
        monkeypatch.setattr(f"{module}.SampleSpans", spans)
    yield memory


@pytest.fixture
async def traced_cloud(tmp_path, biopsies, collector):
    tracing = {"endpoint": collector.endpoint, "samples_per_s": 1000.0}
    async with running(settings_for(tmp_path, tracing=tracing), biopsies.key) as result:
        await result.service.registry.publish(biopsies.bundle)
        yield result


class Device:
    """Spool and uplink of an agent with traces, without a source."""

    def __init__(self, state, endpoint: str, share: float) -> None:
        settings = UplinkSettings(max_batch_age_ms=1)
        self.traces = SampleTraces(SampleSpans(endpoint, "vedette-edge"), share, lambda: "press-07")
        self.spool = Spool(state / "spool.db", SpoolSettings(), Counters())
        self._verdicts = VerdictStore(state / "verdicts.db")
        delivery = Delivery(settings, self.spool, self._verdicts, LinkMeter(), self.traces)
        self._uplink = Uplink(state, settings, [delivery])
        self.spool.listen(lambda: self._uplink.call_soon(delivery.wake))

    def send(self, messages) -> None:
        for sample in messages:
            self.traces.begin(sample)
        self.spool.append([NewSample(item.sample_id, 0.01, item.SerializeToString()) for item in messages], {})
        self._uplink.start()
        end_s = time.monotonic() + 20
        while not self.spool.is_empty():
            assert time.monotonic() < end_s
            time.sleep(0.01)

    def close(self) -> None:
        self._uplink.stop()
        self.spool.close()
        self._verdicts.close()
        self.traces.close()


async def test_a_traced_sample_has_its_spans_from_the_capture_to_the_verdict(
    traced_cloud, collector, biopsies, tmp_path
):
    state, bundle_id = tmp_path / "state", biopsies.bundle.manifest.bundle_id
    await asyncio.to_thread(enroll, state, await traced_cloud.token("press-07"))
    samples = [message(values, bundle_id=bundle_id) for values in biopsies.anomalous[:20]]
    device = Device(state, collector.endpoint, 0.5)
    await asyncio.to_thread(device.send, samples)
    traced = {item.sample_id.hex(): item for item in samples if item.traceparent}
    assert 0 < len(traced) < len(samples)
    async with asyncio.timeout(20):
        while len([span for span in collector.spans() if span.name == "verdict"]) < len(traced):
            await asyncio.to_thread(traced_cloud.service._spans.flush)
            await asyncio.sleep(0.05)
    await asyncio.to_thread(device.close)
    found = collector.spans()
    assert {span.trace_id for span in found} == set(traced)
    for trace_id, sample in traced.items():
        spans = {span.name: span for span in found if span.trace_id == trace_id}
        assert {name: span.service for name, span in spans.items()} == STEPS
        root = spans.pop("screened")
        assert root.start_s == pytest.approx(sample.captured_at.ToNanoseconds() / 1e9, abs=1e-3)
        assert {span.parent_id for span in spans.values()} == {root.span_id}
        at_s = root.start_s
        for name in list(STEPS)[1:]:  # each begins after the one before
            assert at_s - 0.01 <= spans[name].start_s <= spans[name].end_s
            at_s = spans[name].start_s
        assert spans["verdict"].attributes["vedette.decision"] in ("normal", "anomalous")
        assert root.attributes["vedette.source_id"] == "lab"


@pytest.mark.parametrize("collector", ["memory"], indirect=True)
async def test_a_traceparent_of_another_trace_is_ignored_and_the_sample_judged(traced_cloud, collector, biopsies):
    device = await traced_cloud.device()
    (other,) = new_sample_ids(1)
    wrong = [traceparent_of(other.bytes), "00-" + "f" * 60_000, "\0", ""]
    samples = [message(biopsies.normal[0], traceparent=text) for text in wrong]
    samples.append(message(biopsies.normal[0]))
    samples[-1].traceparent = traceparent_of(samples[-1].sample_id)
    results = await device.submit(samples)
    assert {result.status for result in results} == {1}
    assert len(await device.verdicts(len(samples))) == len(samples)
    await asyncio.to_thread(traced_cloud.service._spans.flush)
    spans = collector.spans()
    assert {span.trace_id for span in spans} == {samples[-1].sample_id.hex()}
    assert {span.name for span in spans} == {"ingest", "waiting", "analysis", "verdict"}


def test_a_device_that_has_everything_traced_is_bounded():
    traces = IngestTraces(SampleSpans("http://127.0.0.1:9/v1/traces", "vedette-cloud", Memory()), 5.0)
    ids = [sample_id.bytes for sample_id in new_sample_ids(1000)]
    samples = [sample_pb2.Sample(sample_id=item, traceparent=traceparent_of(item)) for item in ids]
    assert len(traces.accepted(samples)) in (5, 6)
