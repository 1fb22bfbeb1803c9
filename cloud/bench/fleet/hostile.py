"""Simulated hostile devices: enrolled, with a valid certificate, and each repeating one kind of attack."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
import numpy as np
import zstandard

from cloud.bench.fleet.honest import row_message
from cloud.bench.fleet.plan import ClientPlan, ClientResult
from cloud.bench.setup import SimulatedDevice
from shared.addresses import Address
from shared.images import encode_png
from shared.modalities.base import with_crc
from shared.samples import new_sample_id
from vedette.v1 import detection_pb2, detection_pb2_grpc, fleet_pb2, fleet_pb2_grpc, sample_pb2

SUBMIT = "/vedette.v1.Detection/Submit"
CALL_TIMEOUT_S = 30.0
PAUSE_S = 0.2  # between two attacks of one device: hostile devices ignore the pauses that the service asks for
IMAGES = 20  # of one request
BOMB_VALUES = 2**24  # 64 MiB of readings
BOMBS = 64
LARGE_BYTES, LARGE_REQUESTS, LARGE_EVERY_S = 30 * 2**20, 8, 5.0
IDLE_CONNECTIONS, IDLE_S = 100, 20.0
ENROLMENTS = 50
HEARTBEAT_BYTES = (545_000, 200_000)
GREEDY_ROWS = 256
WRONG_FEATURES = (2, 65_000)
ATTACKS = (
    "large images",
    "compressed bombs",
    "large requests",
    "idle connections",
    "enrolment",
    "large heartbeats",
    "alternating bundles",
    "wrong shapes",
    "greedy",
)


class Attacks:
    """Attacks of one device; each is called again and again, and returns the codes of the answers."""

    def __init__(self, device: SimulatedDevice, plan: ClientPlan, image: bytes, bomb: bytes) -> None:
        self._plan, self._image, self._bomb = plan, image, bomb
        self._ca_pem = device.ca_pem
        self._channel = device.channel(plan.address)
        self._submit = detection_pb2_grpc.DetectionStub(self._channel).Submit
        self._row = np.load(plan.rows, mmap_mode="r")[0].astype(np.float32)
        self._turn = 0

    def by_name(self) -> dict[str, Callable[[], Awaitable[list[str]]]]:
        """Return all attacks."""
        return {name: getattr(self, name.replace(" ", "_")) for name in ATTACKS}

    async def large_images(self) -> list[str]:
        """Send images that are small as files and large when decoded: twenty at once, then one."""
        self._turn += 1
        side = self._plan.image_side
        payload = sample_pb2.Payload(encoding=sample_pb2.PAYLOAD_ENCODING_PNG, data=self._image, shape=[side, side, 3])
        count = IMAGES if self._turn % 2 else 1
        bundle_id = self._plan.image_bundle_id or self._plan.bundle_id
        return await self._send([self._message(payload, bundle_id, sample_pb2.MODALITY_IMAGE) for _ in range(count)])

    async def compressed_bombs(self) -> list[str]:
        """Send zstd frames that expand to 64 MiB: with their shape, and with that of a row."""
        self._turn += 1
        shape = [BOMB_VALUES] if self._turn % 2 else [len(self._row)]
        payload = sample_pb2.Payload(encoding=sample_pb2.PAYLOAD_ENCODING_FLOAT32_ZSTD, data=self._bomb, shape=shape)
        return await self._send([self._message(with_crc(payload)) for _ in range(BOMBS)])

    async def large_requests(self) -> list[str]:
        """Send requests of 30 MiB at once."""
        call: Any = self._channel.unary_unary(SUBMIT, None, None)
        body = bytes(LARGE_BYTES)  # not a valid message
        found = await asyncio.gather(*(_code(call(body, timeout=CALL_TIMEOUT_S)) for _ in range(LARGE_REQUESTS)))
        await asyncio.sleep(LARGE_EVERY_S)
        return found

    async def idle_connections(self) -> list[str]:
        """Open connections to both ports and send nothing."""
        async with contextlib.AsyncExitStack() as stack:
            found = []
            for address in (self._plan.address, self._plan.enrolment_address):
                found += [await stack.enter_async_context(_idle(address)) for _ in range(IDLE_CONNECTIONS)]
            await asyncio.sleep(IDLE_S)
            return found

    async def enrolment(self) -> list[str]:
        """Try to enrol with tokens that nobody made, many at once."""
        credentials = grpc.ssl_channel_credentials(self._ca_pem)
        async with grpc.aio.secure_channel(self._plan.enrolment_address, credentials) as channel:
            enroll = fleet_pb2_grpc.FleetStub(channel).Enroll
            request = fleet_pb2.EnrollRequest(token="x" * 43, certificate_signing_request=b"x" * 1000)
            return await asyncio.gather(*(_code(enroll(request, timeout=CALL_TIMEOUT_S)) for _ in range(ENROLMENTS)))

    async def large_heartbeats(self) -> list[str]:
        """Send heartbeats with texts of hundreds of kilobytes."""
        heartbeat = fleet_pb2_grpc.FleetStub(self._channel).Heartbeat
        requests = [
            fleet_pb2.HeartbeatRequest(agent_version="0", warnings=["x" * 500] * (size // 502))
            for size in HEARTBEAT_BYTES
        ]
        return [await _code(heartbeat(request, timeout=CALL_TIMEOUT_S)) for request in requests]

    async def alternating_bundles(self) -> list[str]:
        """Send valid rows that name another version of the bundle each, and some an unknown one."""
        names = [self._plan.bundle_id, *self._plan.other_bundle_ids, "never-1-00000000"]
        return await self._send([self._valid_row(names[place % len(names)]) for place in range(BOMBS)])

    async def wrong_shapes(self) -> list[str]:
        """Send rows with too few and too many values, and rows of NaN."""
        rows = [np.zeros(count, np.float32) for count in WRONG_FEATURES] + [np.full_like(self._row, np.nan)]
        return await self._send([row_message(row, self._plan.bundle_id, "wrong") for row in rows])

    async def greedy(self) -> list[str]:
        """Send valid rows, many at once."""
        return await self._send([self._valid_row(self._plan.bundle_id) for _ in range(GREEDY_ROWS)])

    async def close(self) -> None:
        """End the connection."""
        await self._channel.close(None)

    def _message(
        self,
        payload: sample_pb2.Payload,
        bundle_id: str = "",
        modality: sample_pb2.Modality = sample_pb2.MODALITY_TABULAR,
    ) -> sample_pb2.Sample:
        message = self._valid_row(bundle_id or self._plan.bundle_id)
        message.modality = modality
        message.payload.CopyFrom(payload)
        return message

    def _valid_row(self, bundle_id: str) -> sample_pb2.Sample:
        return row_message(self._row, bundle_id, "hostile")

    async def _send(self, messages: Sequence[sample_pb2.Sample]) -> list[str]:
        for message in messages:
            message.sample_id = new_sample_id().bytes
        try:
            answer = await self._submit(detection_pb2.SubmitRequest(samples=messages), timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            return [error.code().name]
        return [detection_pb2.SubmitStatus.Name(item.status).removeprefix("SUBMIT_STATUS_") for item in answer.results]


def hostile_devices(plan: ClientPlan) -> list[Attacks]:
    """Return the attacks of each device of a plan."""
    image = encode_png(np.zeros((plan.image_side, plan.image_side, 3), np.uint8))
    bomb = zstandard.ZstdCompressor().compress(bytes(4 * BOMB_VALUES))
    return [Attacks(device, plan, image, bomb) for device in plan.devices()]


class HostileFleet:
    """All hostile devices of one process; device n repeats attack n of those that the plan names."""

    def __init__(self, plan: ClientPlan) -> None:
        self._plan = plan
        self._devices = hostile_devices(plan)
        self._answers: Counter[str] = Counter()

    async def connect(self) -> None:
        """Do nothing: each attack connects by itself."""

    async def run(self, start_s: float) -> None:
        """Attack until the end of the run."""
        end_s = start_s + self._plan.seconds
        tasks = []
        names = self._plan.attacks or ATTACKS
        for place, device in enumerate(self._devices):
            name = names[place % len(names)]
            tasks.append(asyncio.create_task(self._repeat(name, device.by_name()[name], end_s)))
        await asyncio.wait(tasks, timeout=max(0.0, end_s - time.perf_counter()))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> ClientResult:
        """End all connections; return the answers."""
        await asyncio.gather(*(device.close() for device in self._devices))
        return ClientResult(answers=dict(self._answers))

    async def _repeat(self, name: str, attack: Callable[[], Awaitable[list[str]]], end_s: float) -> None:
        while time.perf_counter() < end_s:
            for code, count in Counter(await attack()).items():
                self._answers[f"{name}: {code}"] += count
            await asyncio.sleep(PAUSE_S)


async def _code(call: Any) -> str:
    """Return the code that ends a call."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


@contextlib.asynccontextmanager
async def _idle(address: str) -> AsyncIterator[str]:
    """Hold a connection on which nothing is sent; give "open" or "refused"."""
    where = Address.parse(address)
    try:
        _, writer = await asyncio.open_connection(where.host, where.port)
    except OSError:
        yield "refused"
        return
    try:
        yield "open"
    finally:
        writer.close()
