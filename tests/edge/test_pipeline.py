"""A source's pipeline: samples are routed despite later errors, and a new bundle is always installed."""

import asyncio
import dataclasses
import gzip
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.alarms import AlarmDelivery
from edge.bundles.cache import BundleCache
from edge.bundles.installer import InstallPhase
from edge.bundles.updater import Updater
from edge.counters import Counters
from edge.normal_buffer import load_snapshot
from edge.operation.latency import LatencyHistogram
from edge.pipeline import Pipeline, PipelineContext
from edge.routing.budget import UplinkLoad, UploadBudget
from edge.routing.forwarding import Forwarded
from edge.settings import AgentSettings, RouterSettings, SpoolSettings, UplinkSettings
from edge.settings.sources import ImageFolderSettings, ReplaySettings
from edge.sources import SourceHealth
from edge.spool import Spool
from edge.uplink.audit_ledger import NOT_COUNTED, TrackedSample
from edge.uplink.meter import LinkMeter
from edge.uplink.verdicts import VerdictStore
from shared.bundle import Bundle
from shared.errors import EngineError
from shared.images import encode_png
from shared.modalities import load_preprocessor, preprocessing_id
from shared.modality import Modality
from shared.samples import SampleBatch
from shared.status import RunningBundle
from shared.wire import decode_payload
from tests.edge.bundles import normal_images, normal_rows, tabular_bundle
from tests.edge.device import write_csv
from tests.edge.memory_cloud import MemoryCloud, MemoryTransport
from vedette.v1 import fleet_pb2, sample_pb2

BATCH = 64


@pytest.fixture
def around(tmp_path: Path) -> Iterator[PipelineContext]:
    counters = Counters()
    settings = AgentSettings(state_dir=tmp_path / "state", router=RouterSettings(mode="cloud_only", seed=0))
    stop = threading.Event()
    spool = Spool(settings.state_dir / "spool.db", SpoolSettings(), counters)
    alarms = AlarmDelivery([], tmp_path / "alarms.db", counters, str)
    budget, verdicts = UploadBudget(settings.router), VerdictStore(tmp_path / "state" / "verdicts.db")
    yield PipelineContext(
        settings, counters, spool, budget, LatencyHistogram(), None, alarms, None, stop, verdicts.audits
    )
    stop.set()
    spool.close()
    verdicts.close()


def pipeline_on(path: Path, around: PipelineContext) -> Pipeline:
    source = ReplaySettings(id="plant", kind="replay", path=path, bundle_name="plant", batch_size=BATCH)
    return Pipeline(source, around)


def screened(around: PipelineContext) -> int:
    around.spool.close()
    return around.counters.snapshot()["samples_spooled"]


def test_a_bundle_adopted_after_the_source_ended_is_the_running_one(
    around: PipelineContext, tmp_path: Path, tabular: Bundle, signing_key: Ed25519PrivateKey
) -> None:
    pipeline = pipeline_on(write_csv(tmp_path / "r.csv", normal_rows(BATCH)), around)
    pipeline.begin(tabular)
    assert pipeline.join(10)
    assert pipeline.state == "ended"
    second = tabular_bundle(signing_key, version=2)
    assert pipeline.adopt(second)
    assert pipeline.running().bundle_id == second.manifest.bundle_id
    assert around.counters.snapshot()["bundle_swaps"] == 1


def test_a_bundle_a_slow_source_has_not_come_to_is_loaded_and_counted_once(
    around: PipelineContext,
    tmp_path: Path,
    tabular: Bundle,
    signing_key: Ed25519PrivateKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge.pipeline.ADOPTION_TIMEOUT_S", 0.2)
    source = ReplaySettings(
        id="plant",
        kind="replay",
        path=write_csv(tmp_path / "r.csv", normal_rows(9)),
        rate_per_s=0.01,
        bundle_name="plant",
    )
    pipeline = Pipeline(source, around)
    pipeline.begin(tabular)
    second = tabular_bundle(signing_key, version=2)
    offers = []
    for _ in range(2):
        assert pipeline.adopt(second)
        assert pipeline._slot is not None
        offers.append(pipeline._slot.awaited(second.manifest.bundle_id))
    assert offers[0] is offers[1] is not None
    assert around.counters.snapshot()["bundle_swaps"] == 0
    around.stop.set()
    assert pipeline.join(5)
    assert pipeline.running().bundle_id == second.manifest.bundle_id


def test_batches_before_a_failure_of_the_source_are_routed(
    around: PipelineContext, tmp_path: Path, tabular: Bundle
) -> None:
    whole = gzip.compress(write_csv(tmp_path / "r.csv", normal_rows(9000)).read_bytes())
    cut = whole[: len(whole) * 2 // 3]
    (tmp_path / "cut.csv.gz").write_bytes(cut)
    complete_lines = zlib.decompressobj(wbits=31).decompress(cut).count(b"\n")
    pipeline = pipeline_on(tmp_path / "cut.csv.gz", around)
    pipeline.begin(tabular)
    assert pipeline.join(20)
    assert pipeline.state == "failed"
    assert "cannot be read further" in str(pipeline.error)
    rows = complete_lines - 1  # the header
    assert 4096 <= screened(around) <= rows, "no row that the cut halved"
    assert screened(around) >= rows - 500  # bytes that the decompressor held back


@pytest.mark.parametrize("is_paced", [True, False])
def test_a_batch_of_a_live_source_does_not_wait_for_the_next_one(
    around: PipelineContext, tmp_path: Path, tabular: Bundle, monkeypatch: pytest.MonkeyPatch, is_paced: bool
) -> None:
    rows = normal_rows(BATCH).astype(np.float32)
    pause, asked_again = threading.Event(), threading.Event()

    class Quiet:
        source_id, modality, health = "plant", Modality.TABULAR, SourceHealth()

        def __init__(self) -> None:
            self.is_paced = is_paced

        def batches(self) -> Iterator[SampleBatch]:
            yield SampleBatch("plant", Modality.TABULAR, rows, np.zeros(BATCH), [str(row) for row in range(BATCH)])
            asked_again.set()
            pause.wait(20)

    monkeypatch.setattr("edge.pipeline.open_source", lambda *_: Quiet())
    pipeline = Pipeline(
        ReplaySettings(
            id="plant", kind="replay", path=tmp_path, bundle_name="plant", batch_size=BATCH, artefact="int8_openvino"
        ),
        around,
    )
    pipeline.begin(tabular)
    assert asked_again.wait(10)
    assert pipeline._slot is not None
    assert pipeline._slot.current.depth > 1
    routed = around.counters.snapshot()["samples_screened"] + around.spool.status().pending
    assert (routed >= BATCH) == is_paced  # a source without a rate overlaps with the next batch
    pause.set()
    assert pipeline.join(10)
    assert screened(around) == BATCH


def test_a_first_bundle_that_cannot_run_leaves_the_source_waiting_for_another(
    around: PipelineContext, tmp_path: Path, tabular: Bundle, signing_key: Ed25519PrivateKey
) -> None:
    pipeline = pipeline_on(write_csv(tmp_path / "r.csv", normal_rows(BATCH)), around)
    second = tabular_bundle(signing_key, version=2)
    graphs = {path: b"nothing" for path in second.files if "/screener" in path}
    broken = dataclasses.replace(second, files={**second.files, **graphs})
    with pytest.raises(EngineError):
        pipeline.adopt(broken)
    assert not pipeline.ended
    assert pipeline.follows()
    assert pipeline.adopt(tabular)
    assert pipeline.join(10)
    assert (pipeline.state, pipeline.error) == ("ended", None)


def test_the_buffer_fills_again_after_a_roll_back_to_another_preprocessing(
    around: PipelineContext, tmp_path: Path, tabular: Bundle
) -> None:
    from edge.bundles.swap import ScreenerSlot

    pipeline = pipeline_on(write_csv(tmp_path / "r.csv", normal_rows(BATCH)), around)
    around.settings.state_dir.mkdir(exist_ok=True)
    screener = pipeline._load(tabular)
    pipeline._buffer = pipeline._open_buffer(screener)
    assert pipeline._buffer is not None
    pipeline._buffer.preprocessing_id = "of another"  # as a screener on trial leaves it
    from edge.sources import open_source

    source = open_source(pipeline.settings, screener.modality, screener.spec, around.stop)
    pipeline._run(source, ScreenerSlot(screener))
    assert pipeline._buffer.preprocessing_id == screener.preprocessing_id
    # In cloud-only operation all samples travel with their own route, so accepted ones are offered as well.
    assert len(pipeline._buffer) > 0


def test_the_buffer_keeps_graph_inputs_of_readings_for_rounds(
    around: PipelineContext, tmp_path: Path, series: Bundle
) -> None:
    rows = normal_rows(30 * BATCH)
    spec = series.manifest.input
    pipeline = pipeline_on(write_csv(tmp_path / "r.csv", rows), around)
    around.settings.state_dir.mkdir(exist_ok=True)
    pipeline.begin(series)
    assert pipeline.join(20)
    assert (pipeline.state, pipeline.error) == ("ended", None)
    pipeline.save_state()
    snapshot = load_snapshot(around.settings.state_dir / "normal_buffer" / "plant.npz")
    views = np.lib.stride_tricks.sliding_window_view(rows, spec.window_length, axis=0)[:: spec.window_stride]
    expected = load_preprocessor(series).prepare(views.transpose(0, 2, 1)).inputs
    assert snapshot.preprocessing_id == preprocessing_id(series.manifest)
    assert len(snapshot.inputs) > 100
    apart = np.abs(snapshot.inputs[:, np.newaxis] - expected).max(axis=2).min(axis=1)
    assert apart.max() < 1e-3


class Follower:
    def __init__(self) -> None:
        self.asked = 0

    def running(self) -> RunningBundle:
        return RunningBundle(source_id="plant", bundle_name="plant")

    def follows(self) -> bool:
        return True

    def adopt(self, bundle: Bundle, on_trial: Callable[[], None]) -> bool:
        self.asked += 1
        raise RuntimeError("nobody foresaw this")


def test_an_error_nobody_foresaw_refuses_the_bundle_once_and_for_all(
    around: PipelineContext, tmp_path: Path, tabular: Bundle, signing_key: Ed25519PrivateKey
) -> None:
    cache = BundleCache(tmp_path / "bundles", [signing_key.public_key()])
    bundle_id = tabular.manifest.bundle_id
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / f"{bundle_id}.bundle").write_bytes(tabular.archive(edge_only=True))
    follower = Follower()

    async def run() -> None:
        line = MemoryTransport(MemoryCloud())
        updater = Updater("1", UplinkSettings(), cache, [follower], around.spool, around.counters, list, LinkMeter())
        for _ in range(2):
            updater.installer.want(line, [fleet_pb2.DesiredBundle(bundle_name="plant", bundle_id=bundle_id)])
            assert updater.installer.task is not None
            await asyncio.wait([updater.installer.task])
            assert updater.installer.phase is InstallPhase.GIVEN_UP

    asyncio.run(run())
    assert follower.asked == 1
    assert "nobody foresaw this" in cache.failure(bundle_id)
    assert around.counters.snapshot()["bundles_refused"] == 1


def test_a_current_bundle_ends_the_fetches_it_overtook(tmp_path: Path, signing_key: Ed25519PrivateKey) -> None:
    cache = BundleCache(tmp_path, [signing_key.public_key()])
    for bundle_id in ("plant-1-aaaaaaaa", "plant-b-1-bbbbbbbb"):
        cache.partial(bundle_id).write_bytes(b"half")
    cache.make_current("plant", "plant-2-cccccccc")
    assert [path.name for path in tmp_path.glob("*.part")] == ["plant-b-1-bbbbbbbb.part"]


def test_an_image_with_a_name_that_is_no_unicode_gets_into_the_screening_log(tmp_path: Path) -> None:
    from edge.routing.screening_log import ScreeningLog

    log = ScreeningLog(tmp_path / "log.csv")
    name = os.fsdecode(b"caf\xe9.png")
    one = np.array([0.5])
    log.write([name], one, one, np.array([0], dtype=np.int8), {})
    log.close()
    assert "caf\\udce9.png" in (tmp_path / "log.csv").read_text()


def test_the_rate_of_a_camera_or_a_broker_is_measured_for_its_setting_is_only_a_bound() -> None:
    common = {"id": "s", "bundle": "b", "rate_per_s": 5.0}
    rates = {
        kind: AgentSettings.model_validate({"state_dir": "x", "sources": [{**common, "kind": kind, **more}]})
        .sources[0]
        .steady_rate_per_s
        for kind, more in {
            "replay": {"path": "r.csv"},
            "images": {"path": "in"},
            "camera": {"url": "rtsp://camera"},
            "mqtt": {"url": "mqtt://broker", "topic": "t"},
            "tail": {"path": "r.csv"},
        }.items()
    }
    assert rates == {"replay": 5.0, "images": 5.0, "camera": 0.0, "mqtt": 0.0, "tail": 0.0}


def messages_of_six_pictures(around: PipelineContext, folder: Path, images: Bundle) -> list[sample_pb2.Sample]:
    """Return the spool's contents after a folder of six pictures was screened."""
    (folder / "pictures").mkdir()
    for number, pixels in enumerate(normal_images(6, seed=3)):
        (folder / "pictures" / f"{number}.png").write_bytes(encode_png(pixels))
    source = ImageFolderSettings(id="line", kind="images", path=folder / "pictures", bundle_name="line")
    pipeline = Pipeline(source, around)
    pipeline.begin(images)
    assert pipeline.join(20)
    assert pipeline.error is None
    while around.spool.status().pending:
        assert not around.spool.status().error, around.spool.status().error
        time.sleep(0.01)
    return [sample_pb2.Sample.FromString(spooled.data) for spooled in around.spool.take(100, 10**9)]


@pytest.mark.parametrize(
    ("pressure", "encoding", "is_preview"),
    [
        (0.0, sample_pb2.PAYLOAD_ENCODING_PNG, False),
        (0.4, sample_pb2.PAYLOAD_ENCODING_JPEG, False),
        (0.9, sample_pb2.PAYLOAD_ENCODING_JPEG, True),
    ],
)
def test_images_travel_in_the_form_that_the_queue_asks_for(
    pressure: float, encoding: int, is_preview: bool, around: PipelineContext, tmp_path: Path, images: Bundle
) -> None:
    around.budget.follow(UplinkLoad(0, pressure, True, 0.0, 0.0))
    messages = messages_of_six_pictures(around, tmp_path, images)
    assert len(messages) == 6
    for message in messages:
        payload = message.payload
        assert payload.encoding == encoding
        assert payload.HasField("crop") == is_preview
        assert decode_payload(payload, Modality.IMAGE).ndim == 3


def test_an_audit_shows_all_of_its_image_however_narrow_the_link_is(
    around: PipelineContext, tmp_path: Path, images: Bundle
) -> None:
    settings = around.settings.model_copy(update={"router": RouterSettings(audit_share=1.0, forward_p_value=1e-6)})
    narrow = dataclasses.replace(around, settings=settings, budget=UploadBudget(settings.router))
    narrow.budget.follow(UplinkLoad(0, 0.9, True, 0.0, 0.0))
    messages = messages_of_six_pictures(narrow, tmp_path, images)
    assert [message.screening.route for message in messages] == [sample_pb2.ROUTE_AUDIT] * 6
    assert not any(message.payload.HasField("crop") for message in messages)
    assert {message.payload.encoding for message in messages} == {sample_pb2.PAYLOAD_ENCODING_JPEG}
    assert narrow.counters.snapshot()["samples_reduced"] == 0


def test_an_audit_that_cannot_be_packed_counts_as_anomalous_without_anything_to_spool(
    around: PipelineContext, tmp_path: Path
) -> None:
    source = ReplaySettings(id="press", path=tmp_path / "rows.csv", kind="replay", bundle_name="press")
    pipeline = Pipeline(source, around)
    batch = SampleBatch("press", Modality.TABULAR, np.zeros((1, 3)), np.zeros(1), ["0"])
    lost = dataclasses.replace(Forwarded.nothing(), tracked=[TrackedSample(b"", NOT_COUNTED, True, 1.0)])
    pipeline._settle(batch, lost, bundle_id="press-1")
    around.spool.close()
    assert around.audits.counts("press", "press-1").without_decision == 1


def test_a_trial_outlives_the_connection_that_brought_it(
    around: PipelineContext, tmp_path: Path, tabular: Bundle, signing_key: Ed25519PrivateKey
) -> None:
    cache = BundleCache(tmp_path / "bundles", [signing_key.public_key()])
    bundle_id = tabular.manifest.bundle_id
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / f"{bundle_id}.bundle").write_bytes(tabular.archive(edge_only=True))
    begun, may_end, trials = threading.Event(), threading.Event(), []

    class Slow(Follower):
        def adopt(self, bundle: Bundle, on_trial: Callable[[], None]) -> bool:
            trials.append(bundle)
            begun.set()
            return may_end.wait(10)

    async def run() -> None:
        line = MemoryTransport(MemoryCloud())
        updater = Updater("1", UplinkSettings(), cache, [Slow()], around.spool, around.counters, list, LinkMeter())
        wanted = [fleet_pb2.DesiredBundle(bundle_name="plant", bundle_id=bundle_id)]
        updater.installer.want(line, wanted)
        assert await asyncio.to_thread(begun.wait, 10)
        updater.installer.disconnect()
        await asyncio.sleep(0.05)
        updater.installer.want(line, wanted)
        may_end.set()
        assert updater.installer.task is not None
        await asyncio.wait([updater.installer.task])
        assert updater.installer.phase is InstallPhase.ACTIVE

    asyncio.run(run())
    assert len(trials) == 1
    current = cache.current("plant") or cache.current(tabular.manifest.name)
    assert current is not None
    assert current.manifest.bundle_id == bundle_id
