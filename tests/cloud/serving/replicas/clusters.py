"""Replicas for tests: one in this process, and a Ray cluster on this machine."""

import asyncio
import contextlib
import importlib.util
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from cloud.analysis_settings import AnalysisSettings
from cloud.serving.replicas.options import ReplicaOptions
from cloud.serving.replicas.remote_judge import RemoteJudge, bundle_reference
from cloud.serving.replicas.replica import Replica
from cloud.serving.replicas.replica_set import ReplicaSet
from cloud.settings import StoreLocation
from shared.bundle import Bundle
from vedette.v1 import judge_pb2

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'vedette[scale]'"
)


def stored(folder: Path, bundle: Bundle) -> Path:
    """A data directory that holds the bundle."""
    (folder / "bundles").mkdir(parents=True, exist_ok=True)
    bundle.save(folder / "bundles" / f"{bundle.manifest.bundle_id}.vedette")
    return folder


def replica_options(data_dir: Path, **changes: object) -> ReplicaOptions:
    facts = {"bundles_url": "", "device": "cpu", "precision": "fp32", "compiled": False}
    facts |= {"false_alarm_rate": 0.01, "cached_bundles": 2}
    return ReplicaOptions(**{"data_dir": str(data_dir), **facts, "cached_bytes": 2**30, "request_s": 60.0, **changes})


class LocalReplica:
    """A replica in this process, on an event loop of its own."""

    def __init__(self, options: ReplicaOptions) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.replica = Replica(options)

    def send(self, requests: Sequence[judge_pb2.JudgeRequest]) -> list[judge_pb2.JudgeReply]:
        calls = [
            asyncio.run_coroutine_threadsafe(self.replica.judge(each.SerializeToString()), self.loop)
            for each in requests
        ]
        return [judge_pb2.JudgeReply.FromString(call.result(60)) for call in calls]

    def judge_of(self, bundle: Bundle, trusted_keys, part_size: int = 64, replicas: int = 2) -> RemoteJudge:
        reference = bundle_reference(bundle.manifest, trusted_keys)
        judge = RemoteJudge(reference, lambda each: self.send(each), part_size=part_size, replicas=replicas)
        judge.load()
        return judge

    def stop(self) -> None:
        self.replica.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)


@contextlib.contextmanager
def local_replica(options: ReplicaOptions) -> Iterator[LocalReplica]:
    replica = LocalReplica(options)
    try:
        yield replica
    finally:
        replica.stop()


def ray_settings(**changes: object) -> AnalysisSettings:
    ray = {"address": "local", "min_replicas": 2, "max_replicas": 2, "cpus_per_replica": 0.5, **changes}
    return AnalysisSettings.model_validate({"device": "cpu", "ray": ray})


@contextlib.asynccontextmanager
async def ray_replicas(data_dir: Path, **changes: object) -> AsyncIterator[ReplicaSet]:
    """Two replicas on a Ray cluster of their own."""

    async def nothing() -> None: ...

    replicas = ReplicaSet(ray_settings(**changes), StoreLocation(data_dir), nothing)
    task = asyncio.create_task(replicas.run())
    try:
        await running_replicas(replicas, 2)
        yield replicas
    finally:
        task.cancel()
        await asyncio.to_thread(replicas.stop)


async def running_replicas(replicas: ReplicaSet, count: int, timeout_s: float = 120) -> None:
    """Wait for that many running replicas."""
    async with asyncio.timeout(timeout_s):
        while replicas.problem or replicas.running < count:
            await asyncio.sleep(0.1)


def family() -> list[psutil.Process]:
    """All processes below this one."""
    return psutil.Process().children(recursive=True)


def replica_processes() -> list[psutil.Process]:
    found = []
    for each in family():
        with contextlib.suppress(psutil.NoSuchProcess):
            if each.cmdline()[:1] and each.cmdline()[0].startswith("ray::ServeReplica"):
                found.append(each)
    return found
