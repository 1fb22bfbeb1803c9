"""Heartbeats and bundles for devices."""

import asyncio
import hashlib
import json
import time

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import select

from cloud.service import access, fleet
from cloud.service.access import STORE_FAILED
from cloud.service.heartbeats import bounded
from cloud.store.fleet import Place, revoke, set_place
from cloud.store.releases import release
from cloud.store.schema import heartbeats
from shared.bundle import Bundle
from shared.logs import Throttle
from vedette.v1 import fleet_pb2


async def fetch(device, bundle_id: str, offset: int = 0, chunks: int | None = None) -> bytes:
    """Return the stream's bytes from the offset, or only its first chunks if a number is given."""
    data = b""
    call = device.fleet.FetchBundle(fleet_pb2.FetchBundleRequest(bundle_id=bundle_id, offset=offset))
    async for chunk in call:
        assert chunk.offset == offset + len(data)
        data += chunk.data
        chunks = chunks - 1 if chunks is not None else None
        if chunks == 0:
            call.cancel()
            break
    return data


async def test_a_heartbeat_is_stored_and_answered_with_the_bundles_to_run(cloud, device, biopsies):
    request = fleet_pb2.HeartbeatRequest(
        agent_version="0.1.0",
        counters=fleet_pb2.Counters(samples_screened=1000, bytes_screened=2**64 - 1),
        running=[fleet_pb2.RunningBundle(source_id="lab", bundle_name="biopsy", artefact="int8_openvino")],
        spool_samples=3,
        warnings=["spool full: 12 samples dropped", "x" * 5000],
    )
    answer = await device.fleet.Heartbeat(request)
    entry = await cloud.service.registry.current("biopsy")
    (desired,) = answer.desired
    assert (desired.bundle_name, desired.bundle_id) == ("biopsy", entry.bundle_id)
    assert (desired.archive_bytes, desired.archive_sha256.hex()) == (
        entry.edge_archive_bytes,
        entry.edge_archive_sha256,
    )
    assert answer.next_heartbeat_s == cloud.settings.heartbeat_s
    async with cloud.service.store.reading() as connection:
        row = (await connection.execute(select(heartbeats))).one()
    assert (row.device_id, row.samples_screened, row.spool_samples) == ("press-07", 1000, 3)
    assert row.running[0]["artefact"] == "int8_openvino"
    assert row.warnings[0] == "spool full: 12 samples dropped"
    assert len(row.warnings[1]) <= 512


@pytest.mark.parametrize(
    ("ahead_s", "words"),
    [(172_800, "clock: the device is 2 days ahead of the service"), (-1e9, "32 years behind the service"), (20, "")],
)
async def test_a_clock_that_is_off_is_a_warning_of_the_device(cloud, device, ahead_s, words):
    """The service measures it at each heartbeat, whatever the device believes."""
    sent_at_ms = int((time.time() + ahead_s) * 1000)
    request = fleet_pb2.HeartbeatRequest(sent_at_ms=sent_at_ms, warnings=["clock: the device is old news", "other"])
    answer = await device.fleet.Heartbeat(request)
    assert abs(answer.service_time_ms / 1000 - time.time()) < 10
    async with cloud.service.store.reading() as connection:
        *clock, other = (await connection.execute(select(heartbeats.c.warnings))).scalar_one()
        offset_s = (await connection.execute(select(heartbeats.c.clock_offset_s))).scalar_one()
    assert offset_s == pytest.approx(ahead_s, abs=10)
    assert other == "other"
    assert words in clock[0] if words else clock == []


async def test_a_query_is_answered_and_not_stored(cloud, device, biopsies):
    answer = await device.fleet.Heartbeat(fleet_pb2.HeartbeatRequest(query_only=True))
    assert [item.bundle_name for item in answer.desired] == ["biopsy"]
    async with cloud.service.store.reading() as connection:
        assert (await connection.execute(select(heartbeats))).all() == []


async def test_a_second_heartbeat_replaces_the_first(cloud, device):
    for screened in (1, 2):
        await device.fleet.Heartbeat(fleet_pb2.HeartbeatRequest(counters=fleet_pb2.Counters(samples_screened=screened)))
    async with cloud.service.store.reading() as connection:
        assert (await connection.execute(select(heartbeats.c.samples_screened))).scalars().all() == [2]


async def test_a_heartbeat_that_floods_is_cut_and_says_so(cloud, device):
    """A refused heartbeat would make a device look silent."""
    running = [fleet_pb2.RunningBundle(source_id="x" * 600, state="y" * 600)] * 100
    await device.fleet.Heartbeat(fleet_pb2.HeartbeatRequest(running=running, warnings=["z" * 900] * 100))
    async with cloud.service.store.reading() as connection:
        row = (await connection.execute(select(heartbeats))).one()
    assert row.warnings[-1] == "heartbeat too large: 36 sources, 70 warnings, 158 long texts cut"
    assert (len(row.running), len(row.warnings)) == (64, 31)
    assert len(json.dumps([row.running, row.warnings])) < 64_000


def test_a_heartbeat_of_very_many_entries_is_cut_before_anything_is_made_of_it():
    flood = fleet_pb2.HeartbeatRequest(running=[fleet_pb2.RunningBundle()] * 60_000, warnings=[""] * 60_000)
    heartbeat = bounded(flood)
    assert (len(flood.running), len(flood.warnings)) == (64, 30)
    assert heartbeat.warnings[-1] == "heartbeat too large: 59936 sources, 59970 warnings cut"


def test_a_count_of_near_copies_may_have_any_time():
    counts = fleet_pb2.NearCopies(sample_id=b"?", copies=1, last_at=Timestamp(seconds=2**63 - 1, nanos=-1))
    assert bounded(fleet_pb2.HeartbeatRequest(near_copies=[counts])).near_copies[0].copies == 1


def test_the_texts_of_a_heartbeat_hold_no_zero_characters():
    texts = {"agent_version": "0\0", "settings_refusal": "no\0", "warnings": ["a\0b"]}
    heartbeat = bounded(fleet_pb2.HeartbeatRequest(running=[fleet_pb2.RunningBundle(source_id="\0lab")], **texts))
    assert (heartbeat.agent_version, heartbeat.settings_refusal) == ("0\ufffd", "no\ufffd")
    assert (heartbeat.running[0].source_id, heartbeat.warnings) == ("\ufffdlab", ("a\ufffdb",))


async def test_devices_read_no_words_of_a_store_that_fails(cloud, device, caplog, monkeypatch):
    monkeypatch.setattr(access, "_throttle", Throttle())
    async with cloud.service.store.writing() as connection:
        await connection.exec_driver_sql(
            "CREATE TRIGGER damaged BEFORE INSERT ON heartbeats BEGIN SELECT RAISE(FAIL, 'at db.internal'); END"
        )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await device.fleet.Heartbeat(fleet_pb2.HeartbeatRequest())
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.UNAVAILABLE, STORE_FAILED)
    (line,) = [record.fields for record in caplog.records if record.getMessage() == "call_without_store"]
    assert "at db.internal" in str(line["error"])


async def test_calls_with_a_huge_request_are_refused_and_heartbeats_go_on(device):
    huge = fleet_pb2.HeartbeatRequest(warnings=["x" * 2**20])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await device.fleet.Heartbeat(huge)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await device.fleet.Heartbeat(fleet_pb2.HeartbeatRequest())


async def test_a_device_fetches_only_bundles_that_were_current_and_that_its_group_may_have(cloud, device, biopsies):
    registry, first = cloud.service.registry, biopsies.bundle.manifest.bundle_id
    hidden = await registry.publish(biopsies.version(2), make_current=False)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await fetch(device, hidden.bundle_id)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    await registry.rollout(hidden.bundle_id)
    assert await fetch(device, hidden.bundle_id)
    assert await fetch(device, first)  # a device that rolls back may still need it
    await release(cloud.service.store, "biopsy", ["other"], time.time())
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await fetch(device, first)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    await set_place(cloud.service.store, [device.device_id], Place(group="other"))
    assert await fetch(device, first)


async def test_a_fetch_ends_when_its_device_is_revoked(cloud, device, biopsies, monkeypatch):
    monkeypatch.setattr(fleet, "CHUNK_BYTES", 64)  # the fetch takes many seconds
    call = device.fleet.FetchBundle(fleet_pb2.FetchBundleRequest(bundle_id=biopsies.bundle.manifest.bundle_id))
    assert await call.read() is not grpc.aio.EOF
    await revoke(cloud.service.store, device.device_id)

    async def read() -> None:
        while await call.read() is not grpc.aio.EOF:
            pass

    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await asyncio.wait_for(read(), 20)
    assert ended.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_device_fetches_a_few_bundles_at_once(cloud, device, biopsies, monkeypatch):
    monkeypatch.setattr(fleet, "CHUNK_BYTES", 64)
    request = fleet_pb2.FetchBundleRequest(bundle_id=biopsies.bundle.manifest.bundle_id)
    calls = [device.fleet.FetchBundle(request) for _ in range(5)]
    answers = await asyncio.gather(*(call.read() for call in calls), return_exceptions=True)
    (refused,) = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for call in calls:
        call.cancel()


async def test_a_fetched_bundle_is_whole_and_a_broken_fetch_goes_on_where_it_stopped(device, biopsies):
    desired = (await device.fleet.Heartbeat(fleet_pb2.HeartbeatRequest())).desired[0]
    whole = await fetch(device, desired.bundle_id)
    assert hashlib.sha256(whole).digest() == desired.archive_sha256
    assert Bundle.open(whole, [biopsies.key.public_key()], edge_only=True).manifest.name == "biopsy"
    part = await fetch(device, desired.bundle_id, chunks=2)
    assert 0 < len(part) < len(whole)
    assert part + await fetch(device, desired.bundle_id, offset=len(part)) == whole
    assert await fetch(device, desired.bundle_id, offset=len(whole)) == b""


async def test_a_fetch_of_nothing_there_or_beyond_the_end_is_refused(device, biopsies):
    cases = [
        (biopsies.bundle.manifest.bundle_id, 2**40, grpc.StatusCode.OUT_OF_RANGE),
        ("biopsy-9-00000000", 0, grpc.StatusCode.NOT_FOUND),
        ("../pki/ca.key", 0, grpc.StatusCode.NOT_FOUND),
        ("biopsy\0", 0, grpc.StatusCode.NOT_FOUND),
        ("x" * 100_000, 0, grpc.StatusCode.NOT_FOUND),
    ]
    for bundle_id, offset, expected in cases:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await fetch(device, bundle_id, offset)
        assert refused.value.code() is expected


async def test_a_lost_archive_is_data_loss_not_an_empty_bundle(cloud, device, biopsies):
    bundle_id = biopsies.bundle.manifest.bundle_id
    (await cloud.service.registry.edge_archive(bundle_id)).unlink()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await fetch(device, bundle_id)
    assert refused.value.code() is grpc.StatusCode.DATA_LOSS


async def test_the_next_heartbeat_asks_for_a_rolled_back_bundle(cloud, device, biopsies):
    registry = cloud.service.registry
    await registry.publish(biopsies.version(2))
    await registry.rollback("biopsy")
    (desired,) = (await device.fleet.Heartbeat(fleet_pb2.HeartbeatRequest())).desired
    assert desired.bundle_id == biopsies.bundle.manifest.bundle_id
