"""Any request of any RPC gets a refusal or an answer, and the service goes on judging."""

import asyncio
import contextlib
import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vedette.v1
from cloud.service import fleet, live_views
from shared.enrolment import EnrolmentToken
from shared.live_views import NewestSample, live_sample
from shared.modality import Modality
from shared.samples import Route, Screening
from tests.cloud.service.harness import DeviceClient, Running, message, running, settings_for, signing_request
from vedette.v1 import detection_pb2, fleet_pb2, sample_pb2

Code = grpc.StatusCode
REFUSALS = {
    *(Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.OUT_OF_RANGE, Code.RESOURCE_EXHAUSTED, Code.FAILED_PRECONDITION),
    *(Code.PERMISSION_DENIED, Code.UNAUTHENTICATED),
}
UNBOUNDED = {
    "calls_per_second_per_device": 1e6,
    "burst_calls_per_device": 10**6,
    "rejections_per_minute_per_device": 10**6,
    "enrolments_per_minute": 10**6,
}
STREAM_S = 0.02  # that a stream of answers is read
ANSWERS_OF_STREAM = 3
LOADED: list[Any] = [
    importlib.import_module(f"vedette.v1.{path.stem}") for path in Path(vedette.v1.__path__[0]).glob("*_pb2.py")
]
RPCS = {
    f"/{service.full_name}/{method.name}": method
    for module in LOADED
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def submit(device: DeviceClient, token: str) -> Message:
    return detection_pb2.SubmitRequest(
        samples=[message(np.ones(30, np.float32), bundle_id=device.bundle_id) for _ in range(2)]
    )


def heartbeat(device: DeviceClient, token: str) -> Message:
    running = fleet_pb2.RunningBundle(source_id="lab", bundle_name="biopsy", bundle_id=device.bundle_id)
    return fleet_pb2.HeartbeatRequest(agent_version="1", running=[running], warnings=["w"], sent_at_ms=1)


def live_view(device: DeviceClient, token: str) -> Message:
    values, screening = np.ones(30, np.float32), Screening(3.5, 0.01, False, Route.ACCEPT, "none", "c", "int8_openvino")
    sample = live_sample(NewestSample(Modality.TABULAR, 1_700_000_000.0, "rows.csv:1", values, screening))
    return fleet_pb2.AnswerLiveViewRequest(request_id=bytes(16), sample=sample)


FUZZED: dict[str, Callable[[DeviceClient, str], Message]] = {
    "/vedette.v1.Detection/Submit": submit,
    "/vedette.v1.Detection/Watch": lambda device, token: detection_pb2.WatchRequest(cursor=1),
    "/vedette.v1.Fleet/Enroll": lambda device, token: fleet_pb2.EnrollRequest(
        token=EnrolmentToken.from_text(token).secret, certificate_signing_request=b"-----BEGIN"
    ),
    "/vedette.v1.Fleet/Heartbeat": heartbeat,
    "/vedette.v1.Fleet/Renew": lambda device, token: fleet_pb2.RenewRequest(
        certificate_signing_request=signing_request(KEY)
    ),
    "/vedette.v1.Fleet/AnswerLiveView": live_view,
    "/vedette.v1.Fleet/FetchBundle": lambda device, token: fleet_pb2.FetchBundleRequest(bundle_id=device.bundle_id),
}
"""A valid request of each RPC, which the examples change."""
KEY = ec.generate_private_key(ec.SECP256R1())
INTEGERS = st.sampled_from([0, 1, -1, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63), 2**64 - 1, 2**32 - 1]) | st.integers(
    0, 9
)
BYTES = st.binary(max_size=64) | st.binary(min_size=16, max_size=16) | st.just(bytes(5000))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(["", "\0", "x" * 5000, "../x"])


@st.composite
def changed(draw: st.DrawFn, request: Message, depth: int = 0) -> Message:
    """A copy of a message in which each field is kept, removed or drawn at random."""
    result = type(request)()
    result.CopyFrom(request)
    for field in request.DESCRIPTOR.fields:
        fate = draw(st.sampled_from(["keep", "keep", "remove", "draw"]))
        if fate == "remove":
            result.ClearField(field.name)
        elif field.message_type is not None:
            _change_messages(draw, result, field, fate, depth)
        elif fate == "draw":
            _draw_values(draw, result, field)
    return result


def _change_messages(draw: st.DrawFn, result: Any, field: FieldDescriptor, fate: str, depth: int) -> None:
    value = getattr(result, field.name)
    if not field.is_repeated:
        if depth < 4 and (fate == "draw" or result.HasField(field.name)):
            value.CopyFrom(draw(changed(value, depth + 1)))
            value.SetInParent()
        return
    for item in value:
        item.CopyFrom(draw(changed(item, depth + 1)))
    if fate == "draw":
        value.add()


def _draw_values(draw: st.DrawFn, result: Any, field: FieldDescriptor) -> None:
    kinds = {
        FieldDescriptor.CPPTYPE_STRING: BYTES if field.type == FieldDescriptor.TYPE_BYTES else TEXTS,
        FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
        FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    }
    for _ in range(draw(st.integers(1, 6)) if field.is_repeated else 1):
        value = draw(kinds.get(field.cpp_type, INTEGERS))
        with contextlib.suppress(ValueError):  # out of the range of the type
            if field.is_repeated:
                getattr(result, field.name).append(value)
            else:
                setattr(result, field.name, value)


@st.composite
def requests(draw: st.DrawFn, base: Message) -> bytes:
    """The bytes of a changed request, damaged in some examples."""
    data = draw(changed(base)).SerializeToString()
    damage = draw(st.sampled_from(["", "", "", "cut", "flip", "noise"]))
    if damage == "noise":
        return draw(st.binary(max_size=200))
    if damage and data:
        place = draw(st.integers(0, len(data) - 1))
        return (
            data[:place]
            if damage == "cut"
            else data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
        )
    return data


@pytest.fixture
async def open_cloud(tmp_path, biopsies, monkeypatch):
    """A service whose rates do not end the examples, which renews every certificate, and always asks for a sample."""
    monkeypatch.setattr(
        live_views.DeviceLiveViews, "_take", lambda self, device_id, request_id: request_id == bytes(16)
    )
    monkeypatch.setattr(fleet, "RENEWABLE_SHARE", 1.0)
    monkeypatch.setattr(fleet, "RENEWALS_PER_MINUTE", 10**6)
    async with running(settings_for(tmp_path, limits=UNBOUNDED), biopsies.key) as result:
        await result.service.registry.publish(biopsies.bundle)
        yield result


class Caller:
    """Calls of one RPC with a certificate, or of enrolment without one."""

    def __init__(self, cloud: Running, device: DeviceClient, rpc: str) -> None:
        addresses = cloud.service.addresses
        self._channel = device.channel()
        if rpc.endswith("/Enroll"):
            credentials = grpc.ssl_channel_credentials(device.ca_pem)
            self._channel = grpc.aio.secure_channel(addresses.enrolment_address, credentials)
        is_stream = RPCS[rpc].server_streaming
        self._call = (self._channel.unary_stream if is_stream else self._channel.unary_unary)(rpc)
        self._read = self._stream if is_stream else self._one

    async def code(self, data: bytes) -> grpc.StatusCode:
        """The status of a call with this request."""
        try:
            await self._read(self._call(data, timeout=20))
        except grpc.aio.AioRpcError as error:
            return error.code()
        return Code.OK

    async def _one(self, call: Any) -> None:
        await call

    async def _stream(self, call: Any) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STREAM_S):
                for _ in range(ANSWERS_OF_STREAM):
                    await call.read()
        call.cancel()

    async def close(self) -> None:
        await self._channel.close()


async def check_rpc(cloud: Running, rpc: str, biopsies: Any, caplog: Any, examples: int) -> None:
    device = await cloud.device()
    base = FUZZED[rpc](device, await cloud.token("press-08"))
    caller = Caller(cloud, device, rpc)
    codes = list[grpc.StatusCode]()
    loop = asyncio.get_running_loop()

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=requests(base))
    def example(data: bytes) -> None:
        code = asyncio.run_coroutine_threadsafe(caller.code(data), loop).result(30)
        assert code in REFUSALS | {Code.OK}
        codes.append(code)

    with caplog.at_level(logging.WARNING, logger="vedette"):
        await asyncio.to_thread(example)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert Code.OK in codes or rpc.endswith("/Enroll")  # or the examples reach nothing
    await caller.close()
    honest = await cloud.device("honest")
    sent = message(biopsies.normal[0])
    (result,) = await honest.submit([sent])
    assert result.status == detection_pb2.SUBMIT_STATUS_ACCEPTED
    assert (await honest.verdicts(1))[sent.sample_id].decision in (
        sample_pb2.DECISION_NORMAL,
        sample_pb2.DECISION_ANOMALOUS,
    )


def test_every_rpc_has_a_fuzz_test() -> None:
    assert set(FUZZED) == set(RPCS)
    assert len(RPCS) >= 6


@pytest.mark.parametrize("rpc", RPCS)
async def test_any_request_gets_an_answer(open_cloud, rpc, biopsies, caplog):
    await check_rpc(open_cloud, rpc, biopsies, caplog, 40)


@pytest.mark.long
@pytest.mark.parametrize("rpc", RPCS)
async def test_any_of_many_requests_gets_an_answer(open_cloud, rpc, biopsies, caplog):
    await check_rpc(open_cloud, rpc, biopsies, caplog, 2000)
