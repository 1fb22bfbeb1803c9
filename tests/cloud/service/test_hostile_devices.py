"""One enrolled device that misbehaves harms no other device and not the service."""

import asyncio
import contextlib
import json
import os
import sys
import time

import grpc
import grpc.aio
import numpy as np
import pytest

from cloud.service import ports, request_check, request_slots, web
from shared.bundle import InputSpec
from shared.modality import Modality
from tests.cloud.service.harness import WaitingJudge, message, running, settings_for
from vedette.v1 import detection_pb2, detection_pb2_grpc

ACCEPTED, DUPLICATE = detection_pb2.SUBMIT_STATUS_ACCEPTED, detection_pb2.SUBMIT_STATUS_DUPLICATE
REJECTED = detection_pb2.SUBMIT_STATUS_REJECTED
SUBMIT = "/vedette.v1.Detection/Submit"
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def answer(call) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_sixty_large_requests_at_once_take_bounded_memory_and_no_other_device_waits(tmp_path, biopsies):
    limits = {"concurrent_submits_per_device": 2}
    async with running(settings_for(tmp_path, limits=limits), biopsies.key) as cloud:
        await cloud.service.registry.publish(biopsies.bundle)
        greedy, honest = await cloud.device("greedy"), await cloud.device("honest")
        for name, pem in (("ca", greedy.ca_pem), ("key", greedy.key_pem), ("certificate", greedy.certificate_pem)):
            (tmp_path / f"{name}.pem").write_bytes(pem)
        arguments = ["tests.cloud.service.flood", greedy.address, str(tmp_path), "60", str(30 * 2**20)]
        sent = message(biopsies.normal[0], bundle_id=biopsies.bundle.manifest.bundle_id)
        await honest.submit([sent])
        before = peak = resident_bytes()
        flood = await asyncio.create_subprocess_exec(sys.executable, "-m", *arguments, stdout=asyncio.subprocess.PIPE)
        output = asyncio.create_task(flood.communicate())
        while not output.done():
            assert await honest.submit([sent])
            peak = max(peak, resident_bytes())
            await asyncio.sleep(0.02)
        codes = json.loads((await output)[0])
    assert codes["RESOURCE_EXHAUSTED with a pause"] >= 20
    assert sum(codes.values()) == 60
    assert peak - before < 2 * 128 * 2**20  # 60 requests have 1800 MiB


async def test_a_call_without_a_request_and_one_with_garbage_are_refused_and_a_too_large_one_too(device):
    call = device.channel().stream_unary(SUBMIT)()
    await call.done_writing()
    assert await answer(call) is grpc.StatusCode.INVALID_ARGUMENT
    assert await answer(device.channel().unary_unary(SUBMIT)(b"garbage")) is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError, match="larger than max"):  # from which agents send smaller ones
        await device.channel().unary_unary(SUBMIT)(bytes(33 * 2**20), timeout=20)


async def test_a_request_that_never_arrives_loses_its_place_to_others(tmp_path, biopsies):
    limits = {"concurrent_submits": 2, "arrival_s": 0.3}
    async with running(settings_for(tmp_path, limits=limits), biopsies.key) as cloud:
        await cloud.service.registry.publish(biopsies.bundle)
        honest = await cloud.device("honest")
        silent = [await cloud.device(f"silent-{number}") for number in range(2)]
        held = [device.channel().stream_unary(SUBMIT)() for device in silent]
        for call in held:
            await call.wait_for_connection()
        await asyncio.sleep(0.5)
        sent = [message(biopsies.normal[0], bundle_id=biopsies.bundle.manifest.bundle_id)]
        assert [result.status for result in await honest.submit(sent)] == [ACCEPTED]
        assert sorted(call.done() for call in held) == [False, True]
        for call in held:
            call.cancel()


async def test_a_request_that_takes_too_long_to_arrive_ends_although_nobody_waits(cloud, device, monkeypatch):
    monkeypatch.setattr(request_slots, "MAX_ARRIVAL_S", 0.05)
    silent = device.channel().stream_unary(SUBMIT)()
    assert await answer(silent) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert cloud.service._devices._admission.slots._slots == set()


async def test_greedy_devices_leave_room_in_the_backlog_for_others(tmp_path, biopsies):
    """Each greedy device fills its share, which is half of the free places."""
    judge = WaitingJudge()
    limits = {"backlog_samples": 60, "backlog_samples_per_device": 60}
    async with running(settings_for(tmp_path, limits=limits), biopsies.key, lambda bundle: judge) as cloud:
        await cloud.service.registry.publish(biopsies.bundle)
        bundle_id = biopsies.bundle.manifest.bundle_id
        greedy = [await cloud.device(f"greedy-{number}") for number in range(4)]
        for _ in range(40):
            for device in greedy:
                await answer(device.submit([message(biopsies.normal[0], bundle_id=bundle_id)]))
        honest = await cloud.device("honest")
        sent = [message(values, bundle_id=bundle_id) for values in biopsies.normal[:5]]
        assert [result.status for result in await honest.submit(sent)] == [ACCEPTED] * 5
        judge.end()


async def test_images_that_decode_to_too_much_wait_in_the_device_and_no_other_device_waits(tmp_path, biopsies):
    judge = WaitingJudge()
    size = 512 * 512 * 3
    limits = {"decoded_bytes_per_request": 4 * size, "decoded_bytes_per_device": 6 * size}
    spec = InputSpec(image_height=64, image_width=64)
    async with running(settings_for(tmp_path, limits=limits), biopsies.key, lambda bundle: judge) as cloud:
        await cloud.service.registry.publish(biopsies.version(1, modality=Modality.IMAGE, input=spec))
        greedy, honest = await cloud.device("greedy"), await cloud.device("honest")

        def picture(side: int = 512):
            return message(np.zeros((side, side, 3), np.uint8), modality=Modality.IMAGE)

        with pytest.raises(grpc.aio.AioRpcError, match="send fewer") as refused:
            await greedy.submit([picture() for _ in range(5)])
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # upon which an agent halves its requests
        assert len(await greedy.submit([picture() for _ in range(4)])) == 4
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await greedy.submit([picture() for _ in range(3)])
        assert refused.value.code() is RESOURCE_EXHAUSTED
        assert [result.status for result in await honest.submit([picture(2048)])] == [ACCEPTED]  # one, of any size
        assert [result.status for result in await greedy.submit([picture() for _ in range(2)])] == [ACCEPTED] * 2
        judge.end()
        assert len(await greedy.verdicts(6)) == 6
        assert [result.status for result in await greedy.submit([picture() for _ in range(4)])] == [ACCEPTED] * 4


async def test_idle_connections_are_bounded_and_a_connected_device_goes_on(tmp_path, biopsies, monkeypatch):
    monkeypatch.setattr(ports, "HANDSHAKE_MS", 1500)
    async with running(settings_for(tmp_path, limits={"connections": 10}), biopsies.key) as cloud:
        await cloud.service.registry.publish(biopsies.bundle)
        honest = await cloud.device("honest")
        detection = detection_pb2_grpc.DetectionStub(honest.channel())
        request = detection_pb2.SubmitRequest(samples=[message(biopsies.normal[0], bundle_id=honest.bundle_id)])
        await detection.Submit(request)
        host, port = honest.address.rsplit(":", 1)
        idle = [await asyncio.open_connection(host, int(port)) for _ in range(40)]
        await asyncio.sleep(0.3)
        ends = [asyncio.create_task(reader.read(1)) for reader, _ in idle]
        await asyncio.sleep(0.3)
        assert sum(end.done() for end in ends) >= 30
        assert [result.status for result in (await detection.Submit(request)).results] == [DUPLICATE]
        await asyncio.gather(*ends, return_exceptions=True)  # the others end without a handshake
        late = await cloud.device("late")
        assert await late.submit([message(biopsies.normal[1])])
        for _, writer in idle:
            writer.close()


async def test_the_consoles_port_answers_again_after_idle_connections_without_a_restart(
    tmp_path, biopsies, monkeypatch
):
    monkeypatch.setattr(web, "FIRST_REQUEST_S", 1.5)
    async with running(settings_for(tmp_path, limits={"console_connections": 5}), biopsies.key) as cloud:
        host, port = cloud.service.addresses.console_address.rsplit(":", 1)

        async def health() -> bytes:
            reader, writer = await asyncio.open_connection(host, int(port))
            with contextlib.suppress(OSError):
                writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return await reader.read()
            return b""

        idle = [await asyncio.open_connection(host, int(port)) for _ in range(30)]
        assert await health() == b""
        await asyncio.sleep(2)
        assert b"200 OK" in await health()
        for _, writer in idle:
            writer.close()
        # A second request that never ends, on a connection that has served one.
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea")
        async with asyncio.timeout(5):
            assert (await reader.read()).count(b"200 OK") == 1
        writer.close()


async def test_a_device_that_floods_writes_few_lines_into_the_log(device, biopsies, caplog):
    bad = message(biopsies.normal[0], bundle_id="never-1-00000000")
    for _ in range(20):
        await device.submit([bad] * 3)
    lines = [record.fields for record in caplog.records if record.getMessage() == "samples_rejected"]
    assert [(line["device_id"], line["count"]) for line in lines] == [("press-07", 3)]


@pytest.mark.parametrize("bundle_id", ["", "never-1-00000000"])
async def test_a_shape_of_very_many_dimensions_is_rejected_unread(device, biopsies, bundle_id):
    """The product of these dimensions has a million bytes and takes many seconds."""
    huge = message(biopsies.normal[0], bundle_id=bundle_id)
    huge.payload.shape[:] = [2**32 - 1] * 250_000
    started_s = time.perf_counter()
    rejected, accepted = await device.submit([huge, message(biopsies.normal[1])])
    assert time.perf_counter() - started_s < 2
    assert (rejected.status, accepted.status) == (REJECTED, ACCEPTED)
    assert rejected.reason == "shape has 250000 dimensions; no sample has more than 4"


async def test_the_reason_of_a_rejection_has_a_bounded_length(device, biopsies, caplog, monkeypatch):
    monkeypatch.setattr(request_check, "check_payloads", lambda checked: {0: "x" * 100_000})
    (result,) = await device.submit([message(biopsies.normal[0])])
    (line,) = [record.fields for record in caplog.records if record.getMessage() == "samples_rejected"]
    assert result.reason == line["first"] == "x" * 512
