"""Samples from their upload to the verdict: checks, duplicates, durability."""

import asyncio
import time
import zlib

import grpc
import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.service.access import STORE_FAILED
from cloud.service.bundle_rules import BundleRule
from cloud.service.sample_check import check_sample
from cloud.serving.analysis import Analysis
from cloud.store.ingest import inbox_request
from cloud.store.registry import publish_to
from cloud.store.sample_rows import rows_of
from shared.bundle import InputSpec
from shared.modality import Modality
from tests.cloud.service.harness import WaitingJudge, check_samples, message, running, settings_for
from tests.cloud.stored_samples import count_stored
from vedette.v1 import detection_pb2, sample_pb2

ACCEPTED = detection_pb2.SUBMIT_STATUS_ACCEPTED
DUPLICATE = detection_pb2.SUBMIT_STATUS_DUPLICATE
REJECTED = detection_pb2.SUBMIT_STATUS_REJECTED


def statuses(results):
    return [result.status for result in results]


async def test_samples_come_back_as_verdicts_that_tell_normal_from_anomalous(device, biopsies):
    bundle_id = biopsies.bundle.manifest.bundle_id
    normal = [message(values, bundle_id=bundle_id) for values in biopsies.normal]
    anomalous = [message(values, bundle_id=bundle_id) for values in biopsies.anomalous[:60]]
    results = await device.submit(normal + anomalous)
    assert statuses(results) == [ACCEPTED] * len(results)
    assert [result.sample_id for result in results] == [sent.sample_id for sent in normal + anomalous]
    verdicts = await device.verdicts(len(results))
    found = {
        name: np.mean([verdicts[sent.sample_id].decision == sample_pb2.DECISION_ANOMALOUS for sent in group])
        for name, group in {"normal": normal, "anomalous": anomalous}.items()
    }
    assert found["normal"] < 0.1
    assert found["anomalous"] > 0.5
    verdict = verdicts[anomalous[0].sample_id]
    assert {opinion.analyzer for opinion in verdict.opinions} == {"knn", "time_estimation"}
    assert verdict.bundle_id == bundle_id
    assert abs(verdict.judged_at.seconds - time.time()) < 60


async def test_an_acknowledged_sample_is_in_the_store(cloud, device, biopsies):
    sent = [message(values) for values in biopsies.normal[:5]]
    await device.submit(sent)
    assert await count_stored(cloud.service.store, [item.sample_id for item in sent]) == 5


async def test_sending_again_is_a_duplicate_and_gives_no_second_verdict(device, biopsies):
    sent = [message(values) for values in biopsies.normal[:3]]
    assert statuses(await device.submit([*sent, sent[0]])) == [ACCEPTED, ACCEPTED, ACCEPTED, DUPLICATE]
    assert statuses(await device.submit(sent)) == [DUPLICATE] * 3
    assert len(await device.verdicts(4, timeout_s=2)) == 3


async def test_the_id_of_another_devices_sample_is_rejected(cloud, device, biopsies):
    other = await cloud.device("press-08")
    sent = message(biopsies.normal[0])
    await device.submit([sent])
    results = await other.submit([sent, message(biopsies.normal[1])])
    assert statuses(results) == [REJECTED, ACCEPTED]
    assert "another device" in results[0].reason


async def test_each_bad_sample_is_rejected_with_its_reason_and_the_good_ones_are_taken(device, biopsies):
    good = biopsies.normal[0]
    bad = {
        "UUIDv7": message(good, sample_id=b"short"),
        "judges tabular samples, not unknown": _with(message(good), "modality", 77),
        "p-value": _with(message(good), "screening.p_value", float("nan")),
        "route": _with(message(good), "screening.route", 0),
        "longer than": message(good, origin="x" * 2000),
        "NUL character": message(good, source_id="lab\0"),
        "has 2147483648 x 2147483648 values": _with(message(good), "payload.shape", [2**31, 2**31]),
        "bytes; shape": _with(message(good), "payload.data", b"1234"),
        "zstd": _with(message(good), "payload.encoding", sample_pb2.PAYLOAD_ENCODING_FLOAT32_ZSTD),
        "anomaly map": _with(message(good), "screening.anomaly_map.height", 5),
        "has 2 values; the bundle expects 30": message(good[:2]),
        "has 65000 values": message(np.zeros(65_000, np.float32)),
        "all values are NaN": message(np.full(30, np.nan, np.float32)),
        "a value is NaN": message(np.where(np.arange(30) == 3, np.nan, good).astype(np.float32)),
        "infinite": message(np.full(30, np.inf, np.float32)),
        "not one that this service gave": message(good, bundle_id="never-1-00000000"),
        "judges tabular samples, not series": message(np.zeros((4, 2), np.float32), modality=Modality.SERIES),
        "calendar": _with(message(good), "captured_at.seconds", 2**62),
    }
    results = await device.submit([*bad.values(), message(good)])
    assert statuses(results) == [REJECTED] * len(bad) + [ACCEPTED]
    for expected, result in zip(bad, results, strict=False):
        assert expected in result.reason
    assert len(await device.verdicts(2, timeout_s=3)) == 1


async def test_a_bundle_that_was_never_current_is_refused_and_one_that_was_is_judged(cloud, device, biopsies):
    registry = cloud.service.registry
    hidden = await registry.publish(biopsies.version(3), make_current=False)
    replaced = biopsies.bundle.manifest.bundle_id
    await registry.publish(biopsies.version(2))
    sent = [message(biopsies.normal[0], bundle_id=bundle_id) for bundle_id in (hidden.bundle_id, replaced)]
    results = await device.submit(sent)
    assert statuses(results) == [REJECTED, ACCEPTED]
    assert (await device.verdicts(1))[sent[1].sample_id].bundle_id == replaced
    await registry.rollout(hidden.bundle_id)
    assert statuses(await device.submit(sent)) == [ACCEPTED, DUPLICATE]


async def test_a_payload_that_does_not_fit_its_bundle_is_refused_before_it_is_decoded(device, biopsies):
    """The header announces 64 MiB, and the frame has no CRC, which would spare the check the decoding."""
    header = zstandard.ZstdCompressor(write_content_size=True).compress(bytes(2**26))[:12]
    bomb = message(biopsies.normal[0])
    bomb.payload.encoding, bomb.payload.data = sample_pb2.PAYLOAD_ENCODING_FLOAT32_ZSTD, header + b"no frame"
    bomb.payload.shape[:] = [2**24]
    (result,) = await device.submit([bomb])
    assert (result.status, result.reason) == (REJECTED, "has 16777216 values; the bundle expects 30")


async def test_a_damaged_frame_of_readings_is_rejected_and_its_neighbour_is_judged(device, biopsies):
    good = biopsies.normal[0]
    frame = zstandard.ZstdCompressor(write_content_size=True).compress(good.astype(np.float32).tobytes())
    broken = message(good, bundle_id=biopsies.bundle.manifest.bundle_id)
    broken.payload.encoding, broken.payload.data = (
        sample_pb2.PAYLOAD_ENCODING_FLOAT32_ZSTD,
        frame[:-8],
    )  # its header still announces the right size
    neighbour = message(good, bundle_id=biopsies.bundle.manifest.bundle_id)
    results = await device.submit([broken, neighbour])
    assert statuses(results) == [REJECTED, ACCEPTED]
    assert "zstd" in results[0].reason
    verdicts = await device.verdicts(1)
    assert verdicts[neighbour.sample_id].reason == ""


async def test_damaged_readings_with_a_matching_checksum_are_rejected(device, biopsies):
    good = biopsies.normal[0]
    frame = zstandard.ZstdCompressor(write_content_size=True).compress(good.astype(np.float32).tobytes())[:-8]
    broken = message(good)
    broken.payload.encoding, broken.payload.data = sample_pb2.PAYLOAD_ENCODING_FLOAT32_ZSTD, frame
    broken.payload.crc32 = zlib.crc32(frame)  # a device that computes the checksum of damaged data
    results = await device.submit([broken, message(good)])
    assert statuses(results) == [REJECTED, ACCEPTED]
    assert "zstd" in results[0].reason


async def test_an_analysis_that_fails_on_one_sample_costs_the_others_nothing(tmp_path, biopsies):
    poison = biopsies.normal[3].copy()

    class Fragile:
        def __init__(self, analysis: Analysis):
            self._analysis = analysis

        def judge(self, values, crops=()):
            if any(np.array_equal(item, poison) for item in values):
                raise RuntimeError("out of memory")
            return self._analysis.judge(values, crops)

    def load(bundle):
        return Fragile(Analysis.load(bundle))

    async with running(settings_for(tmp_path), biopsies.key, load) as cloud:
        await cloud.service.registry.publish(biopsies.bundle)
        device = await cloud.device()
        sent = [message(values, bundle_id=biopsies.bundle.manifest.bundle_id) for values in biopsies.normal[:20]]
        await device.submit(sent)
        verdicts = await device.verdicts(20)
    failed = verdicts[sent[3].sample_id]
    assert (failed.decision, failed.reason) == (
        sample_pb2.DECISION_UNDECIDED,
        "the analysis failed (RuntimeError). The log of the service has the details.",
    )
    assert sum(verdict.decision == sample_pb2.DECISION_UNDECIDED for verdict in verdicts.values()) == 1


async def test_watching_goes_on_from_the_cursor_and_shows_no_other_devices_verdicts(cloud, device, biopsies):
    other = await cloud.device("press-08")
    await device.submit([message(values) for values in biopsies.normal[:4]])
    await other.submit([message(values) for values in biopsies.normal[:4]])
    first = await device.events(3)
    rest = await device.events(99, cursor=first[-1].cursor, timeout_s=2)
    everything = await device.events(5)
    assert everything == first + rest
    cursors = [event.cursor for event in everything]
    assert cursors == sorted(set(cursors))
    theirs = {event.verdict.sample_id for event in await other.events(5)}
    assert {event.verdict.sample_id for event in everything} & theirs == {b""}  # the published bundle is for all


async def test_a_cursor_of_another_store_starts_anew(device, biopsies):
    await device.submit([message(biopsies.normal[0])])
    assert len(await device.events(2, cursor=2**63)) == 2


async def test_a_bundle_published_by_another_process_is_told_within_a_second(cloud, device, biopsies):
    watching = asyncio.create_task(device.events(2))
    await asyncio.sleep(0.5)
    started_s = time.monotonic()
    entry = await publish_to(cloud.settings.data_dir, biopsies.version(2), biopsies.key.public_key())
    published_s = time.monotonic()
    events = await watching
    assert events[-1].bundle_changed.bundle_id == entry.bundle_id
    assert time.monotonic() - published_s < 1.0, started_s


async def test_too_large_a_backlog_asks_to_wait_and_takes_nothing(tmp_path, biopsies):
    limits = {"backlog_samples": 1000, "backlog_samples_per_device": 10}
    judge = WaitingJudge()
    async with running(settings_for(tmp_path, limits=limits), biopsies.key, lambda bundle: judge) as cloud:
        await cloud.service.registry.publish(biopsies.bundle)
        device, other = await cloud.device(), await cloud.device("press-08")
        bundle_id = biopsies.bundle.manifest.bundle_id
        await device.submit([message(values, bundle_id=bundle_id) for values in biopsies.normal[:9]])
        late = [message(values, bundle_id=bundle_id) for values in biopsies.normal[9:12]]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await device.submit(late)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert 0 < int(dict(refused.value.trailing_metadata())["grpc-retry-pushback-ms"]) <= 30_000
        assert await count_stored(cloud.service.store, [sample.sample_id for sample in late]) == 0
        assert statuses(await other.submit([message(biopsies.normal[0])])) == [ACCEPTED]
        judge.end()
        await device.verdicts(9)
        assert statuses(await device.submit(late)) == [ACCEPTED] * 3


async def test_too_many_samples_in_one_request_are_refused_as_a_whole(device, biopsies):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await device.submit([message(biopsies.normal[0])] * 1025)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_full_disk_is_unavailable_and_loses_nothing_that_was_acknowledged(cloud, device, biopsies):
    sent = [message(values) for values in biopsies.normal[:4]]
    await device.submit(sent[:2])
    store = cloud.service.store
    ((pages,),) = await store.write_directly(lambda driver: driver.execute("PRAGMA page_count").fetchall())
    await store.write_directly(lambda driver: driver.execute(f"PRAGMA max_page_count={pages}").fetchall())
    large = [message(values) for values in biopsies.normal[4:] for _ in range(10)]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await device.submit(large[:1000])
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert refused.value.details() == STORE_FAILED
    await store.write_directly(lambda driver: driver.execute("PRAGMA max_page_count=1000000000").fetchall())
    assert statuses(await device.submit(sent)) == [DUPLICATE, DUPLICATE, ACCEPTED, ACCEPTED]
    assert len(await device.verdicts(4)) == 4


@pytest.fixture
def all_payloads_leave(monkeypatch):
    """Every payload goes into a segment, however small."""
    for module in ("cloud.store.ingest", "cloud.service.request_check"):
        monkeypatch.setattr(f"{module}.LEAST_VALUE_BYTES", 1)
        monkeypatch.setattr(f"{module}.LEAST_SEGMENT_BYTES", 1)


@pytest.mark.usefixtures("all_payloads_leave")
async def test_a_payload_store_that_cannot_be_written_is_unavailable_and_loses_nothing(cloud, device, biopsies):
    sent = [message(values) for values in biopsies.normal[:4]]
    folder = cloud.settings.data_dir / "payloads"
    folder.write_bytes(b"in place of a folder")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await device.submit(sent)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert refused.value.details() == STORE_FAILED
    folder.unlink()
    assert statuses(await device.submit(sent)) == [ACCEPTED] * 4
    assert len(list(folder.rglob("*.segment"))) == 1
    assert len(await device.verdicts(4)) == 4
    assert statuses(await device.submit(sent)) == [DUPLICATE] * 4
    assert len(list(folder.rglob("*.segment"))) == 1


_TEXT = st.text(max_size=20)
_PAYLOADS = st.builds(
    sample_pb2.Payload,
    encoding=st.integers(-1, 9).filter(lambda number: number >= 0),
    data=st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=100).map(lambda tail: b"\x89PNG\r\n\x1a\n" + tail),
        st.binary(max_size=100).map(lambda tail: b"\xff\xd8\xff" + tail),
        st.binary(max_size=100).map(lambda tail: b"\x28\xb5\x2f\xfd" + tail),
    ),
    shape=st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 8), max_size=5),
)
_SAMPLES = st.builds(
    sample_pb2.Sample,
    sample_id=st.binary(max_size=20) | st.uuids(version=4).map(lambda made: made.bytes),
    modality=st.integers(0, 9),
    source_id=_TEXT,
    origin=_TEXT,
    payload=_PAYLOADS,
    screening=st.builds(
        sample_pb2.Screening,
        score=st.floats(),
        p_value=st.floats() | st.floats(0, 1),
        route=st.integers(0, 9),
        bundle_id=_TEXT,
        anomaly_map=st.builds(
            sample_pb2.AnomalyMap, height=st.integers(0, 9), width=st.integers(0, 9), values=st.binary(max_size=81)
        ),
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(garbage=st.lists(_SAMPLES, max_size=8))
def test_garbage_is_answered_per_sample(garbage):
    reasons = check_samples(garbage, {"": BundleRule(Modality.TABULAR, InputSpec(channels=("a", "b")))})
    assert all(reasons.values())
    assert reasons.keys() <= set(range(len(garbage)))
    accepted = [sample for place, sample in enumerate(garbage) if place not in reasons]
    if accepted:  # what is accepted can become a row
        request = inbox_request("press-07", 1.0, accepted)
        assert len(rows_of("press-07", 1.0, request.data)) == len(accepted)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_a_sample_with_any_bytes_changed_is_answered(biopsies, data):
    raw = bytearray(message(biopsies.normal[0]).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, 10_000)) % len(raw)  # a message's length depends on the time
        raw[place] = data.draw(st.integers(0, 255))
    try:
        changed = sample_pb2.Sample.FromString(bytes(raw))
    except Exception:
        return  # gRPC answers what is no message
    reasons = check_samples([changed], {"": BundleRule(Modality.TABULAR, biopsies.bundle.manifest.input)})
    assert reasons or len(rows_of("press-07", 1.0, inbox_request("press-07", 1.0, [changed]).data)) == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_the_check_of_a_request_agrees_with_the_check_of_each_sample(biopsies, data):
    """Samples that are checked together, plain or compressed, get the answers of `check_sample`."""
    sent = [message(values) for values in biopsies.normal[:4]]
    sent[1].screening.anomaly_map.CopyFrom(sample_pb2.AnomalyMap(height=1, width=2, values=b"ab"))
    frame = zstandard.ZstdCompressor(write_content_size=True).compress(sent[2].payload.data)
    sent[2].payload.encoding, sent[2].payload.data = sample_pb2.PAYLOAD_ENCODING_FLOAT32_ZSTD, frame
    changed = []
    for sample in sent:
        raw = bytearray(sample.SerializeToString())
        for _ in range(data.draw(st.integers(0, 1))):
            raw[data.draw(st.integers(0, 10_000)) % len(raw)] = data.draw(st.integers(0, 255))
        try:
            changed.append(sample_pb2.Sample.FromString(bytes(raw)))
        except Exception:
            changed.append(sample)
    rules = {"": BundleRule(Modality.TABULAR, biopsies.bundle.manifest.input)}
    alone = {place: reason for place, sample in enumerate(changed) if (reason := check_sample(sample, rules))}
    assert check_samples(changed, rules) == alone


async def test_garbage_over_the_wire_leaves_the_service_well(device, biopsies):
    rng = np.random.default_rng(0)
    for _ in range(20):
        garbage = [message(biopsies.normal[0]) for _ in range(8)]
        for sample in garbage:
            sample.payload.data = rng.bytes(int(rng.integers(0, 200)))
            sample.payload.shape[:] = rng.integers(0, 50, int(rng.integers(0, 4))).tolist()
            sample.payload.encoding = int(rng.integers(0, 6))
            sample.modality = int(rng.integers(0, 6))
        assert len(await device.submit(garbage)) == 8
    assert statuses(await device.submit([message(biopsies.normal[0])])) == [ACCEPTED]


def _with(sample, path, value):
    *parents, name = path.split(".")
    target = sample
    for parent in parents:
        target = getattr(target, parent)
    if isinstance(value, list):
        getattr(target, name)[:] = value
    else:
        setattr(target, name, value)
    return sample
