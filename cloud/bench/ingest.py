"""Ingest benchmark: a service with durable commits against a bare `grpc.aio` echo of the same messages.

The same clients, with the same certificates, load one side after the other in turns of a few seconds. The figure is the
median over the rounds of service / echo within each round, since a machine's speed changes from one minute to the next.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.bench.machine import cpu_seconds, machine
from cloud.bench.setup import Peer, Setup, SimulatedDevice, printed_address, service_address
from cloud.bench.workloads import WORKLOADS, RequestKind, renew
from cloud.training.progress import StageProgress
from shared.errors import VedetteError
from vedette.v1 import detection_pb2, detection_pb2_grpc

REQUIRED = {"SQLite": 0.7, "PostgreSQL": 0.5}
SIDES = ("echo", "service")
NO_LIMIT = 10**15
_UNLIMITED = (  # the analysis is held: the backlog grows without end
    "backlog_samples",
    "backlog_samples_per_device",
    "decoded_bytes_per_device",
    "calls_per_second_per_device",
    "burst_calls_per_device",
    "samples_per_second_per_device",
    "burst_samples_per_device",
    "bytes_per_second_per_device",
    "burst_bytes_per_device",
)


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """`seconds`: length of a turn. `rounds`: turns of each side. `workloads`: names of `WORKLOADS`.

    `store_url`: URL of an empty PostgreSQL database; empty for SQLite.
    """

    seconds: float
    rounds: int
    clients: int
    workloads: Sequence[str]
    store_url: str
    command: str

    @property
    def store(self) -> str:
        """Name of the back end."""
        return "PostgreSQL" if self.store_url else "SQLite"


@dataclass(slots=True)
class Turn:
    """Requests answered in one turn of one side, and the seconds that each took."""

    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    refused: int = 0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies_s) / self.elapsed_s


def run_ingest_benchmark(options: IngestOptions, progress: StageProgress) -> dict[str, Any]:
    """Return figures and requirements; raises VedetteError if a side does not start or loses samples."""
    before = machine()
    with tempfile.TemporaryDirectory(prefix="vedette-bench-") as name:
        workloads = [workload for workload in WORKLOADS if workload.name in options.workloads]
        figures = asyncio.run(_measure(Path(name), options, workloads, progress))
    rows = [_requirement(name, figure, REQUIRED[options.store]) for name, figure in figures.items()]
    facts = {"seconds": options.seconds, "rounds": options.rounds, "clients": options.clients, "store": options.store}
    return {"command": options.command, "machine": before, **facts, "requirements": rows, "figures": figures}


async def _measure(
    folder: Path, options: IngestOptions, workloads: Sequence[RequestKind], progress: StageProgress
) -> dict[str, Any]:
    key = Ed25519PrivateKey.generate()
    bundles = {workload.modality: workload.bundle(key) for workload in workloads}
    limits = dict.fromkeys(_UNLIMITED, NO_LIMIT)
    # A PostgreSQL store keeps payloads in the database unless it is told another place.
    payload_store = f"file://{folder / 'payloads'}" if options.store_url else ""
    places = {"store_url": options.store_url, "payload_store": payload_store}
    setup = Setup(folder, key, {"limits": limits, **places})
    progress("starting", 0.0)
    identities = await setup.prepare(list(bundles.values()), options.clients)
    try:
        peers = {
            "echo": await setup.start("cloud.bench.echo_server", printed_address),
            "service": await setup.start("cloud.bench.held_service", service_address),
        }
        figures = {}
        for workload in workloads:
            bundle_id = bundles[workload.modality].manifest.bundle_id
            figures[workload.name] = await _compare(workload, bundle_id, peers, identities, options, progress)
        return figures
    finally:
        await asyncio.to_thread(setup.stop)


async def _compare(
    workload: RequestKind,
    bundle_id: str,
    peers: dict[str, Peer],
    identities: Sequence[SimulatedDevice],
    options: IngestOptions,
    progress: StageProgress,
) -> dict[str, Any]:
    """Return the figures of one workload: alternating turns of both sides, after a short one of each."""
    requests = [workload.request(bundle_id, seed) for seed in range(len(identities))]
    turns: dict[str, list[Turn]] = {side: [] for side in SIDES}
    channels = {side: [identity.channel(peers[side].address) for identity in identities] for side in SIDES}
    try:
        for side in SIDES:
            await _turn(peers[side], channels[side], requests, min(1.0, options.seconds))
        for number in range(options.rounds):
            for place, side in enumerate(SIDES):
                progress(f"{workload.name}, {side}", (number + place / 2) / options.rounds)
                turns[side].append(await _turn(peers[side], channels[side], requests, options.seconds))
    finally:
        for channel in (*channels["echo"], *channels["service"]):
            await channel.close(None)
    return _figures(workload, turns, sum(request.ByteSize() for request in requests) / len(requests))


async def _turn(
    peer: Peer,
    channels: Sequence[grpc.aio.Channel],
    requests: Sequence[detection_pb2.SubmitRequest],
    seconds: float,
) -> Turn:
    """Return what the clients got done in a turn: each sends its next request when the last one is answered."""
    turn = Turn()
    cpu_before_s, started_s = cpu_seconds(peer.pid), time.perf_counter()

    async def client(channel: grpc.aio.Channel, request: detection_pb2.SubmitRequest) -> None:
        detection = detection_pb2_grpc.DetectionStub(channel)
        while (sent_s := time.perf_counter()) - started_s < seconds:
            renew(request)
            try:
                answer = await detection.Submit(request, timeout=60)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise VedetteError(f"A request failed: {error.code().name}, {error.details()}.") from None
                turn.refused += 1
                await asyncio.sleep(0.01)
                continue
            _check(request, answer)
            turn.latencies_s.append(time.perf_counter() - sent_s)

    await asyncio.gather(*(client(channel, request) for channel, request in zip(channels, requests, strict=True)))
    turn.elapsed_s = time.perf_counter() - started_s
    turn.cpu_s = cpu_seconds(peer.pid) - cpu_before_s
    return turn


def _check(request: detection_pb2.SubmitRequest, answer: detection_pb2.SubmitResponse) -> None:
    """Raise VedetteError unless the answer accepts every sample."""
    if len(answer.results) != len(request.samples):
        raise VedetteError(f"{len(answer.results)} results for {len(request.samples)} samples.")
    for result in answer.results:
        if result.status != detection_pb2.SUBMIT_STATUS_ACCEPTED:
            raise VedetteError(f"A sample was not accepted: {result.reason or result.status}.")


def _figures(workload: RequestKind, turns: dict[str, list[Turn]], request_bytes: float) -> dict[str, Any]:
    sides = {}
    for side, measured in turns.items():
        rate = statistics.median(turn.rate for turn in measured)
        latencies_s = sorted(latency for turn in measured for latency in turn.latencies_s)
        sides[side] = {
            "requests_a_second": rate,
            "samples_a_second": rate * workload.batch_size,
            "cpu_us_a_sample": 1e6 * sum(turn.cpu_s for turn in measured) / len(latencies_s) / workload.batch_size,
            "p50_ms": 1000 * latencies_s[len(latencies_s) // 2],
            "p99_ms": 1000 * latencies_s[int(len(latencies_s) * 0.99)],
            "refused": sum(turn.refused for turn in measured),
        }
    ratios = [service.rate / echo.rate for echo, service in zip(turns["echo"], turns["service"], strict=True)]
    spread = {"ratio": statistics.median(ratios), "lowest_ratio": min(ratios), "highest_ratio": max(ratios)}
    return {"batch_size": workload.batch_size, "request_bytes": request_bytes, **sides, **spread}


def _requirement(name: str, figure: dict[str, Any], required: float) -> dict[str, Any]:
    return {
        "samples": name,
        "what": "ingest with durable commit, relative to a bare echo",
        "required": required,
        "measured": figure["ratio"],
        "met": figure["ratio"] >= required,
    }
