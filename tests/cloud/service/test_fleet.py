import hashlib
import time

import grpc
import pytest
from sqlalchemy import select

from cloud.store.schema import heartbeats
from shared.bundle import Bundle
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


async def test_a_heartbeat_that_floods_is_refused(device):
    many = fleet_pb2.HeartbeatRequest(running=[fleet_pb2.RunningBundle()] * 300)
    long = fleet_pb2.HeartbeatRequest(running=[fleet_pb2.RunningBundle(source_id="x" * 600)])
    for request in (many, long):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await device.fleet.Heartbeat(request)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


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
    ]
    for bundle_id, offset, expected in cases:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await fetch(device, bundle_id, offset)
        assert refused.value.code() is expected


async def test_a_lost_archive_is_data_loss_not_an_empty_bundle(cloud, device, biopsies):
    bundle_id = biopsies.bundle.manifest.bundle_id
    cloud.service.registry.edge_archive_path(bundle_id).unlink()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await fetch(device, bundle_id)
    assert refused.value.code() is grpc.StatusCode.DATA_LOSS


async def test_the_next_heartbeat_asks_for_a_rolled_back_bundle(cloud, device, biopsies):
    registry = cloud.service.registry
    await registry.publish(biopsies.version(2))
    await registry.rollback("biopsy")
    (desired,) = (await device.fleet.Heartbeat(fleet_pb2.HeartbeatRequest())).desired
    assert desired.bundle_id == biopsies.bundle.manifest.bundle_id
