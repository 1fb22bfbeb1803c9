"""Bounds of calls and connections: rate of a device, connections of an address, calls without access."""

import asyncio
import contextlib
import time

import grpc
import numpy as np
import pytest

from cloud.service import access, ports, small_calls
from cloud.service.connection_limit import CHECK_EVERY_S
from cloud.store import Store
from cloud.store.fleet import Device, revoke
from tests.cloud.service.harness import message, running, settings_for
from vedette.v1 import detection_pb2, fleet_pb2

Code = grpc.StatusCode


@pytest.fixture
async def limited(tmp_path, biopsies):
    limits = {"calls_per_second_per_device": 0.5, "burst_calls_per_device": 3}
    async with running(settings_for(tmp_path, limits=limits), biopsies.key) as result:
        await result.service.registry.publish(biopsies.bundle)
        yield result


async def test_calls_beyond_the_rate_are_refused_with_the_pause_that_helps(limited, biopsies):
    device, other = await limited.device(), await limited.device("press-08")
    for values in biopsies.normal[:3]:
        await device.submit([message(values)])
    code, _, pause_ms = await refusal_of(device, biopsies.normal[3], tries=20)  # on a slow machine one more is due
    assert code is Code.RESOURCE_EXHAUSTED
    assert 0 < pause_ms <= 2000
    await other.submit([message(biopsies.normal[4])])
    await asyncio.sleep(pause_ms / 1000)
    await device.submit([message(biopsies.normal[3])])


async def test_a_device_that_sends_more_bytes_than_it_may_waits_and_others_do_not(tmp_path, biopsies):
    size = len(detection_pb2.SubmitRequest(samples=[message(biopsies.normal[0])]).SerializeToString())
    limits = {"bytes_per_second_per_device": 1024, "burst_bytes_per_device": 1024}
    async with running(settings_for(tmp_path, limits=limits), biopsies.key) as bounded:
        await bounded.service.registry.publish(biopsies.bundle)
        device, other = await bounded.device(), await bounded.device("press-08")
        await device.submit([message(values) for values in biopsies.normal[: 2 + 3 * 1024 // size]])
        code, text, pause_ms = await refusal_of(device, biopsies.normal[0])
        assert code is Code.RESOURCE_EXHAUSTED
        assert "over 1024 bytes a second" in text
        assert 1000 < pause_ms <= 4000
        await other.submit([message(biopsies.normal[1])])
        await asyncio.sleep(pause_ms / 1000)
        await device.submit([message(biopsies.normal[0])])


async def test_a_device_that_sends_more_samples_than_it_may_waits_and_others_do_not(tmp_path, biopsies, caplog):
    limits = {"samples_per_second_per_device": 2.0, "burst_samples_per_device": 4}
    async with running(settings_for(tmp_path, limits=limits), biopsies.key) as bounded:
        await bounded.service.registry.publish(biopsies.bundle)
        device, other = await bounded.device(), await bounded.device("press-08")
        await device.submit([message(values) for values in biopsies.normal[:12]])
        code, text, pause_ms = await refusal_of(device, biopsies.normal[0])
        assert code is Code.RESOURCE_EXHAUSTED
        assert "over 2 samples a second" in text
        assert "requests_refused" in caplog.text
        assert 1000 < pause_ms <= 4000
        await other.submit([message(biopsies.normal[1])])
        await asyncio.sleep(pause_ms / 1000)
        await device.submit([message(biopsies.normal[0])])


async def test_a_large_rejected_request_counts_for_many(tmp_path, biopsies):
    limits = {"rejections_per_minute_per_device": 3}
    async with running(settings_for(tmp_path, limits=limits), biopsies.key) as bounded:
        await bounded.service.registry.publish(biopsies.bundle)
        device = await bounded.device()
        garbage = device.channel().unary_unary("/vedette.v1.Detection/Submit")
        codes = []
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await garbage(bytes(6 * 2**20))
            codes.append(refused.value.code())
        assert codes == [Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED]


async def test_a_device_whose_requests_are_rejected_waits_and_others_do_not(tmp_path, biopsies):
    limits = {"rejections_per_minute_per_device": 4}
    wrong = np.full_like(biopsies.normal[0], np.nan)
    async with running(settings_for(tmp_path, limits=limits), biopsies.key) as bounded:
        await bounded.service.registry.publish(biopsies.bundle)
        device, other = await bounded.device(), await bounded.device("press-08")
        for _ in range(8):  # accepted samples cost nothing
            await device.submit([message(biopsies.normal[0])])
        # A valid sample does not excuse the three others of its request.
        tried, refused = await until_refused(device, [wrong, wrong, wrong, biopsies.normal[0]], tries=12)
        assert 5 <= tried < 12
        assert refused.code() is Code.RESOURCE_EXHAUSTED
        assert "Over 4 requests of 'press-07' a minute were rejected" in refused.details()
        await other.submit([message(biopsies.normal[1])])


async def test_requests_that_do_not_arrive_count_as_bytes(tmp_path, biopsies):
    limits = {"burst_bytes_per_device": 2**20, "bytes_per_second_per_device": 2**18}
    async with running(settings_for(tmp_path, limits=limits), biopsies.key) as bounded:
        await bounded.service.registry.publish(biopsies.bundle)
        device = await bounded.device()
        await device.submit([message(biopsies.normal[0])])
        endless = device.channel().stream_unary("/vedette.v1.Detection/Submit")
        call = endless()
        await call.wait_for_connection()
        await asyncio.sleep(0.5)
        call.cancel()
        code, text, _ = await refusal_of(device, biopsies.normal[0], tries=20)
        assert code is Code.RESOURCE_EXHAUSTED
        assert "bytes a second" in text


async def test_a_request_that_decodes_to_too_much_is_not_held_against_the_device(tmp_path, biopsies):
    limits = {"rejections_per_minute_per_device": 1, "decoded_bytes_per_request": 200}
    async with running(settings_for(tmp_path, limits=limits), biopsies.key) as bounded:
        await bounded.service.registry.publish(biopsies.bundle)
        device = await bounded.device()
        for _ in range(4):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await device.submit([message(values) for values in biopsies.normal[:4]])
            assert "send fewer" in refused.value.details()
        await device.submit([message(biopsies.normal[0])])


async def test_requests_that_cannot_be_read_count_as_rejected(tmp_path, biopsies):
    limits = {"rejections_per_minute_per_device": 3}
    async with running(settings_for(tmp_path, limits=limits), biopsies.key) as bounded:
        await bounded.service.registry.publish(biopsies.bundle)
        device = await bounded.device()
        garbage = device.channel().unary_unary("/vedette.v1.Detection/Submit")
        codes = []
        for _ in range(5):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await garbage(b"\xff" * 100)
            codes.append(refused.value.code())
        assert codes == [Code.INVALID_ARGUMENT] * 4 + [Code.RESOURCE_EXHAUSTED]


async def refusal_of(device, values, tries: int = 1) -> tuple[Code, str, int]:
    """Code, text and pause in milliseconds with which a valid sample of the device is refused in so many tries."""
    _, refused = await until_refused(device, [values], tries)
    return refused.code(), refused.details(), int(dict(refused.trailing_metadata())["grpc-retry-pushback-ms"])


async def until_refused(device, rows, tries: int) -> tuple[int, grpc.aio.AioRpcError]:
    """Number of requests with these rows that were answered, and the refusal of the next one."""
    for tried in range(tries):
        try:
            await device.submit([message(values) for values in rows])
        except grpc.aio.AioRpcError as refused:
            return tried, refused
    pytest.fail("no request was refused")


async def test_calls_without_access_are_counted_before_the_store_is_read(limited, monkeypatch):
    device = await limited.device()
    await revoke(limited.service.store, device.device_id)
    reads: list[str] = []
    read = access.device

    async def counted(store: Store, device_id: str) -> Device | None:
        reads.append(device_id)
        return await read(store, device_id)

    monkeypatch.setattr(access, "device", counted)
    fleet = device.fleet
    codes: list[grpc.StatusCode] = []
    for _ in range(12):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await fleet.Heartbeat(fleet_pb2.HeartbeatRequest())
        codes.append(refused.value.code())
    allowed = codes.count(grpc.StatusCode.PERMISSION_DENIED)
    assert 3 <= allowed < 12
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 12 - allowed
    assert 0 < len(reads) <= 2 * allowed
    again = await limited.device()  # its new certificate has a count of its own
    assert await again.fleet.Heartbeat(fleet_pb2.HeartbeatRequest())


async def test_the_newest_connections_of_an_address_beyond_its_limit_are_closed(tmp_path, biopsies):
    async with running(settings_for(tmp_path, limits={"connections_per_address": 4}), biopsies.key) as crowded:
        host, port = crowded.service.addresses.address.rsplit(":", 1)
        opened = [await asyncio.open_connection(host, int(port)) for _ in range(4)]
        await asyncio.sleep(2 * CHECK_EVERY_S)  # those that come between two checks count as equally new
        opened += [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        closed = await asyncio.gather(*(_ends(reader, within_s=3.0) for reader, _ in opened))
        for _, writer in opened:
            writer.close()
    assert closed == [False] * 4 + [True] * 3


async def _ends(reader: asyncio.StreamReader, within_s: float) -> bool:
    """Whether the service closes the connection; its first bytes, if any, are skipped."""
    try:
        async with asyncio.timeout(within_s):
            while await reader.read(1000):
                pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


async def test_a_request_that_arrives_while_its_device_is_revoked_ends(cloud, device):
    """The message is never finished, so the call only waits."""
    call = device.channel().stream_unary(
        "/vedette.v1.Detection/Submit",
        request_serializer=bytes,
        response_deserializer=detection_pb2.SubmitResponse.FromString,
    )(timeout=60)
    await call.wait_for_connection()
    await asyncio.sleep(0.2)
    await revoke(cloud.service.store, device.device_id)
    started_s = time.monotonic()
    assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
    assert time.monotonic() - started_s < 10


@pytest.fixture
async def bounded(tmp_path, biopsies, monkeypatch):
    """A service that waits half a second for a small request, and as long for the next call of a connection."""
    monkeypatch.setattr(small_calls, "READ_S", 0.5)
    options = dict(ports._OPTIONS) | {"grpc.max_connection_idle_ms": 500}
    monkeypatch.setattr(ports, "_OPTIONS", tuple(options.items()))
    async with running(settings_for(tmp_path, limits={"watches_per_device": 2}), biopsies.key) as result:
        yield result


async def test_a_device_has_few_event_streams_and_few_small_requests_that_arrive(bounded, biopsies):
    await bounded.service.registry.publish(biopsies.bundle)  # the first event of each stream
    device, other = await bounded.device(), await bounded.device("press-08")

    async def watch(client) -> grpc.aio.UnaryStreamCall | None:
        """An open stream; None if it is refused."""
        call = client.detection.Watch(detection_pb2.WatchRequest(), timeout=20)
        with contextlib.suppress(grpc.aio.AioRpcError):
            assert await call.read() is not grpc.aio.EOF
            return call
        assert await call.code() is Code.RESOURCE_EXHAUSTED
        return None

    first, second = await watch(device), await watch(device)
    assert first
    assert second
    assert await watch(device) is None
    assert await watch(other)
    first.cancel()
    async with asyncio.timeout(10):
        while await watch(device) is None:
            await asyncio.sleep(0.01)

    unfinished = device.channel().stream_unary("/vedette.v1.Fleet/Heartbeat")
    slow = [unfinished(timeout=20) for _ in range(3)]
    codes = [await call.code() for call in slow]
    assert sorted(codes, key=str) == [Code.INVALID_ARGUMENT] * 2 + [Code.RESOURCE_EXHAUSTED]
    assert await device.fleet.Heartbeat(fleet_pb2.HeartbeatRequest())


async def test_a_connection_without_calls_is_closed(bounded):
    device = await bounded.device()
    channel = device.channel()
    await channel.channel_ready()
    async with asyncio.timeout(10):
        await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
    assert channel.get_state() is grpc.ChannelConnectivity.IDLE
