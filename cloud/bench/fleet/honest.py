"""Simulated honest devices: each makes samples at a rate, sends them and follows its events, as an agent does."""

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from cloud.bench.fleet.plan import ClientPlan, ClientResult
from cloud.bench.setup import SimulatedDevice
from cloud.bench.workloads import forwarded
from shared.modality import Modality
from shared.samples import Sample, new_sample_id
from shared.wire import sample_to_message, timestamp
from vedette.v1 import detection_pb2, detection_pb2_grpc, sample_pb2

CONNECTING_AT_ONCE = 16
CONNECT_TIMEOUT_S = 60.0
CALL_TIMEOUT_S = 30.0
MOST_SAMPLES = 64  # of one request
FIRST_WAIT_S = 0.2  # after an answer that names no pause
_DELIVERED = (detection_pb2.SUBMIT_STATUS_ACCEPTED, detection_pb2.SUBMIT_STATUS_DUPLICATE)


def row_message(values: NDArray[np.float32], bundle_id: str, origin: str) -> sample_pb2.Sample:
    """Return a forwarded row as an agent sends it; its id and time change with each use."""
    sample = Sample(new_sample_id(), "line-1", Modality.TABULAR, time.time(), origin, values)
    return sample_to_message(sample, forwarded(bundle_id))


def pause_s(error: grpc.aio.AioRpcError) -> float:
    """Return the pause in seconds that the service asks for, or FIRST_WAIT_S."""
    metadata: Any = error.trailing_metadata() or ()
    pause_ms = dict(metadata).get("grpc-retry-pushback-ms", "")
    return int(pause_ms) / 1000 if str(pause_ms).isdigit() else FIRST_WAIT_S


class HonestDevice:
    """Device that makes samples at a fixed rate, whether or not the service keeps up.

    One request is under way at a time; samples that are made meanwhile go with the next one.
    """

    def __init__(self, device: SimulatedDevice, plan: ClientPlan, rows: NDArray[np.float32], seed: int) -> None:
        self._channel = device.channel(plan.address)
        self._detection = detection_pb2_grpc.DetectionStub(self._channel)
        self._random = np.random.default_rng(seed)
        self._template = row_message(rows[seed % len(rows)], plan.bundle_id, f"rows.csv:{seed}")
        self._rows = [value.astype("<f4").tobytes() for value in rows[self._random.permutation(len(rows))[:32]]]
        self._interval_s = 1.0 / plan.rate
        self._waiting: deque[bytes] = deque()
        self._made_s: dict[bytes, float] = {}
        self._wakened = asyncio.Event()
        self._acknowledged: set[bytes] = set()
        self._judged: set[bytes] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self.acknowledged_ms: list[float] = []
        self.verdict_ms: list[float] = []
        self.answers: Counter[str] = Counter()

    async def connect(self) -> None:
        """Connect and follow the events; raises TimeoutError if the service does not answer."""
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await self._channel.channel_ready()
        self._tasks.append(asyncio.create_task(self._watch()))

    async def run(self, start_s: float, seconds: float) -> None:
        """Make and send samples from `start_s` of time.perf_counter() on."""
        self._tasks.append(asyncio.create_task(self._send()))
        due_s = start_s + self._random.uniform(0, self._interval_s)
        while due_s < start_s + seconds:
            await asyncio.sleep(due_s - time.perf_counter())
            sample_id = new_sample_id().bytes
            self._made_s[sample_id] = due_s
            self._waiting.append(sample_id)
            self._wakened.set()
            due_s += self._interval_s

    @property
    def missing(self) -> int:
        """Samples without an acknowledgement or a verdict."""
        return len(self._made_s) - len(self._acknowledged & self._judged)

    async def close(self) -> None:
        """End all calls."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._channel.close(None)

    def add_to(self, result: ClientResult) -> None:
        """Add this device's figures."""
        result.produced += len(self._made_s)
        result.acknowledged += len(self._acknowledged)
        result.lost += len(self._acknowledged - self._judged)
        result.acknowledged_ms += self.acknowledged_ms
        result.verdict_ms += self.verdict_ms
        for name, count in self.answers.items():
            result.answers[name] = result.answers.get(name, 0) + count

    async def _send(self) -> None:
        while True:
            await self._wakened.wait()
            self._wakened.clear()
            while self._waiting:
                sent = [self._waiting.popleft() for _ in range(min(MOST_SAMPLES, len(self._waiting)))]
                try:
                    answer = await self._detection.Submit(self._request(sent), timeout=CALL_TIMEOUT_S)
                except grpc.aio.AioRpcError as error:
                    self.answers[error.code().name] += 1
                    self._waiting.extendleft(reversed(sent))
                    await asyncio.sleep(pause_s(error))
                else:
                    self._settle(answer)

    def _request(self, sample_ids: Sequence[bytes]) -> detection_pb2.SubmitRequest:
        request = detection_pb2.SubmitRequest()
        now = timestamp(time.time())
        for sample_id in sample_ids:
            message = request.samples.add()
            message.CopyFrom(self._template)
            message.sample_id = sample_id
            message.captured_at.CopyFrom(now)
            message.payload.data = self._rows[sample_id[-1] % len(self._rows)]
        return request

    def _settle(self, answer: detection_pb2.SubmitResponse) -> None:
        now_s = time.perf_counter()
        for item in answer.results:
            self.answers[detection_pb2.SubmitStatus.Name(item.status).removeprefix("SUBMIT_STATUS_")] += 1
            if item.status in _DELIVERED and item.sample_id not in self._acknowledged:
                self._acknowledged.add(item.sample_id)
                self.acknowledged_ms.append(1000 * (now_s - self._made_s[item.sample_id]))

    async def _watch(self) -> None:
        cursor = 0
        while True:
            try:
                async for event in self._detection.Watch(detection_pb2.WatchRequest(cursor=cursor)):
                    cursor = event.cursor
                    if event.HasField("verdict"):
                        self._note(event.verdict.sample_id)
            except grpc.aio.AioRpcError as error:
                self.answers[f"Watch {error.code().name}"] += 1
                await asyncio.sleep(pause_s(error))

    def _note(self, sample_id: bytes) -> None:
        made_s = self._made_s.get(sample_id)
        if made_s is not None and sample_id not in self._judged:
            self._judged.add(sample_id)
            self.verdict_ms.append(1000 * (time.perf_counter() - made_s))


class HonestFleet:
    """All honest devices of one process."""

    def __init__(self, plan: ClientPlan) -> None:
        self._plan = plan
        rows = np.load(plan.rows)
        self._devices = [
            HonestDevice(device, plan, rows, plan.seed + place) for place, device in enumerate(plan.devices())
        ]

    async def connect(self) -> None:
        """Connect all devices, a few at once."""
        turns = asyncio.Semaphore(CONNECTING_AT_ONCE)

        async def connect(device: HonestDevice) -> None:
            async with turns:
                await device.connect()

        await asyncio.gather(*(connect(device) for device in self._devices))

    async def run(self, start_s: float) -> None:
        """Run all devices, then wait for the last answers and verdicts."""
        plan = self._plan
        await asyncio.gather(*(device.run(start_s, plan.seconds) for device in self._devices))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(plan.drain_s):
                while any(device.missing for device in self._devices):
                    await asyncio.sleep(0.1)

    async def close(self) -> ClientResult:
        """End all calls; return the figures."""
        result = ClientResult()
        await asyncio.gather(*(device.close() for device in self._devices))
        for device in self._devices:
            device.add_to(result)
        return result
