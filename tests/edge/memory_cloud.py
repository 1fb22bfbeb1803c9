"""A cloud in memory behind the agent's transport, and a line to it on which everything goes wrong that can."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc
from grpc.aio import AioRpcError, Metadata

from vedette.v1 import detection_pb2, fleet_pb2, sample_pb2

ACCEPTED, DUPLICATE = detection_pb2.SUBMIT_STATUS_ACCEPTED, detection_pb2.SUBMIT_STATUS_DUPLICATE


@dataclass
class MemoryCloud:
    """Accepted samples and their events; `received` counts each sample every time it came."""

    samples: dict[bytes, bytes] = field(default_factory=dict)
    events: list[detection_pb2.Event] = field(default_factory=list)
    received: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def accept(self, data: bytes) -> detection_pb2.SampleResult:
        """Keep one sample and judge it at once."""
        sample = sample_pb2.Sample.FromString(data)
        self.received += 1
        if sample.sample_id in self.samples:
            return detection_pb2.SampleResult(sample_id=sample.sample_id, status=DUPLICATE)
        self.samples[sample.sample_id] = data
        verdict = sample_pb2.Verdict(
            sample_id=sample.sample_id, decision=sample_pb2.DECISION_ANOMALOUS, p_value=0.001, bundle_id="b"
        )
        verdict.judged_at.FromSeconds(1_700_000_000)
        self.events.append(detection_pb2.Event(cursor=len(self.events) + 1, verdict=verdict))
        self.changed.set()
        return detection_pb2.SampleResult(sample_id=sample.sample_id, status=ACCEPTED)


class MemoryTransport:
    """A line that works."""

    def __init__(self, cloud: MemoryCloud) -> None:
        self.cloud = cloud

    async def submit(self, samples: Sequence[bytes], timeout_s: float) -> detection_pb2.SubmitResponse:
        return detection_pb2.SubmitResponse(results=[self.cloud.accept(data) for data in samples])

    async def heartbeat(self, request: fleet_pb2.HeartbeatRequest, timeout_s: float) -> fleet_pb2.HeartbeatResponse:
        return fleet_pb2.HeartbeatResponse(next_heartbeat_s=1)

    async def renew(self, request_pem: bytes, timeout_s: float) -> bytes:
        raise AioRpcError(grpc.StatusCode.UNIMPLEMENTED, Metadata(), Metadata(), "no renewal here")

    def watch(self, cursor: int) -> "_Events":
        return _Events(self.cloud, cursor)

    def fetch(self, bundle_id: str, offset: int) -> "_Nothing":
        return _Nothing()

    async def close(self) -> None:
        """Nothing is held."""


class BadTransport(MemoryTransport):
    """A line that delays, loses requests and answers, resets, falls silent, and a service that answers in part, twice,
    or about what nobody asked. Which of it happens when follows from `seed`."""

    FAULTS = (
        "none",
        "slow",
        "request lost",
        "answer lost",
        "reset",
        "silent",
        "error",
        "half an answer",
        "answers twice",
        "foreign answers",
        "unknown status",
    )

    def __init__(self, cloud: MemoryCloud, seed: int) -> None:
        super().__init__(cloud)
        self._random = random.Random(seed)
        self.happened: set[str] = set()

    async def submit(self, samples: Sequence[bytes], timeout_s: float) -> detection_pb2.SubmitResponse:
        fault = self._random.choice(self.FAULTS)
        self.happened.add(fault)
        if fault == "slow":
            await asyncio.sleep(timeout_s / 3)
        if fault in ("request lost", "silent"):
            await asyncio.sleep(timeout_s)
            raise failure(grpc.StatusCode.DEADLINE_EXCEEDED)
        if fault == "error":
            raise failure(self._random.choice([grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED]))
        half = samples[: len(samples) // 2] if fault == "reset" else samples
        response = await super().submit(half, timeout_s)
        if fault == "reset":
            raise failure(grpc.StatusCode.UNAVAILABLE)
        if fault == "answer lost":
            await asyncio.sleep(timeout_s)
            raise failure(grpc.StatusCode.DEADLINE_EXCEEDED)
        results = list(response.results)
        if fault == "half an answer":
            results = results[: len(results) // 2]
        elif fault == "answers twice":
            results += results
        elif fault == "foreign answers":
            results = [detection_pb2.SampleResult(sample_id=bytes(16), status=ACCEPTED), *results]
        elif fault == "unknown status":
            results[0].MergeFromString(b"\x10\x63")  # field 2, status: 99, as a newer service may say
        return detection_pb2.SubmitResponse(results=results)

    async def heartbeat(self, request: fleet_pb2.HeartbeatRequest, timeout_s: float) -> fleet_pb2.HeartbeatResponse:
        if self._random.random() < 0.3:
            raise failure(grpc.StatusCode.UNAVAILABLE)
        return await super().heartbeat(request, timeout_s)

    def watch(self, cursor: int) -> "_Events":
        return _Events(self.cloud, cursor, breaks_after=self._random.choice([0, 1, 5, 50]))


class _Events:
    def __init__(self, cloud: MemoryCloud, cursor: int, breaks_after: int | None = None) -> None:
        self._cloud, self._cursor, self._left = cloud, cursor, breaks_after

    async def read(self) -> detection_pb2.Event | None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise failure(grpc.StatusCode.UNAVAILABLE)
        while len(self._cloud.events) <= self._cursor:
            self._cloud.changed.clear()
            await self._cloud.changed.wait()
        event = self._cloud.events[self._cursor]
        self._cursor = event.cursor
        return event

    def cancel(self) -> None:
        """Nothing is held."""


class _Nothing:
    async def read(self) -> None:
        return None

    def cancel(self) -> None:
        """Nothing is held."""


def failure(code: grpc.StatusCode, retry_after_ms: int | None = None) -> AioRpcError:
    """As gRPC raises it."""
    trailing = Metadata() if retry_after_ms is None else Metadata(("grpc-retry-pushback-ms", str(retry_after_ms)))
    return AioRpcError(code, Metadata(), trailing, "as the test wants it")
