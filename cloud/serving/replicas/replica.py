"""Replica of the analysis: loads bundles from the bundle store and judges with them, one request at a time."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloud.serving.bounded_judge import BoundedJudge
from cloud.serving.cache import AnalysisCache
from cloud.serving.ports import Judge
from cloud.serving.replicas.messages import failure_reply, reply_of, samples_of
from cloud.serving.replicas.options import ReplicaOptions
from cloud.serving.worker import Worker
from cloud.settings import StoreLocation
from cloud.store.bundle_files import stored_archive
from shared.bundle import Bundle
from shared.errors import BundleIntegrityError
from vedette.v1 import judge_pb2


class Replica:
    """Analysis that answers `JudgeRequest` messages with `JudgeReply` messages, both as bytes.

    A bundle is loaded at its first request, after its signature and hash were verified; the least recently used ones
    leave the memory.
    """

    def __init__(self, options: ReplicaOptions) -> None:
        self._options = options
        self._worker, self._loader = Worker("analysis"), Worker("loading")
        self._references: dict[str, judge_pb2.BundleReference] = {}  # the newest of each bundle
        self._cache = AnalysisCache(self._open, self._load, self._loader, options.cached_bundles, options.cached_bytes)
        self._turn = asyncio.Lock()
        self._started: dict[object, float] = {}  # work under way, and since when

    async def judge(self, data: bytes) -> bytes:
        """Return the reply to a request; every error of the analysis becomes a failure in it."""
        try:
            request = judge_pb2.JudgeRequest.FromString(data)
            with self._at_work():
                judge = await self._judge_of(request.bundle)
            async with self._turn:
                with self._at_work():
                    reply = await self._worker.run(_answer, judge, request)
        except Exception as error:
            reply = failure_reply(error)
        return reply.SerializeToString()

    def check_health(self) -> None:
        """Raise TimeoutError if a request or a load has taken longer than `request_s`: the replica is then replaced."""
        if self._started and time.monotonic() - min(self._started.values()) > self._options.request_s:
            raise TimeoutError(f"a request takes longer than {self._options.request_s:.0f} s")

    def stop(self) -> None:
        """End the threads."""
        for worker in (self._worker, self._loader):
            worker.stop(0.1)

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        work = object()
        self._started[work] = time.monotonic()
        try:
            yield
        finally:
            del self._started[work]

    async def _judge_of(self, reference: judge_pb2.BundleReference) -> Judge:
        self._references[reference.bundle_id] = reference
        _, judge = await self._cache.get(reference.bundle_id)
        return judge

    async def _open(self, bundle_id: str) -> Bundle:
        return await asyncio.to_thread(self._verified, self._references[bundle_id])

    def _verified(self, reference: judge_pb2.BundleReference) -> Bundle:
        """Return the bundle; raises BundleError if it is not what the reference names, StorageError without it."""
        location = StoreLocation(Path(self._options.data_dir), "", self._options.bundles_url)
        keys = [Ed25519PublicKey.from_public_bytes(key) for key in reference.trusted_keys]
        bundle = Bundle.open(stored_archive(location, reference.bundle_id), keys)
        if hashlib.sha256(bundle.manifest.to_bytes()).digest() != reference.manifest_sha256:
            raise BundleIntegrityError(f"{reference.bundle_id}: the stored bundle is another one. Publish it again.")
        return bundle

    def _load(self, bundle: Bundle) -> Judge:
        from cloud.serving.analysis import load_analysis  # imports PyTorch: in the thread

        chosen = self._options
        return BoundedJudge(
            load_analysis(bundle, chosen.device, chosen.false_alarm_rate, chosen.precision, compiled=chosen.compiled)
        )


def _answer(judge: Judge, request: judge_pb2.JudgeRequest) -> judge_pb2.JudgeReply:
    values, crops, early = samples_of(request)
    started_s = time.perf_counter()
    if not values:
        return reply_of([], 0.0)
    answers = judge.judge(values, crops) if early is None else judge.judge(values, crops, early)
    return reply_of(answers, time.perf_counter() - started_s)
