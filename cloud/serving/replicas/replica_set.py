"""Replicas of the analysis as the service sees them: their judges, their state, and the process that reaches them."""

import asyncio
import contextlib
import importlib.util
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloud.analysis_settings import AnalysisSettings
from cloud.serving.replicas.options import (
    JUDGE,
    SERVICE,
    STATUS,
    UNLIMITED,
    FrontOptions,
    ReplicaOptions,
    ReplicaScale,
)
from cloud.serving.replicas.remote_judge import RemoteJudge, bundle_reference
from cloud.settings import StoreLocation
from shared.addresses import Address
from shared.backoff import Backoff
from shared.bundle import Bundle
from shared.errors import ConnectionFailedError, MissingExtraError
from shared.logs import EventLog
from shared.supervision import SupervisedProcess
from vedette.v1 import judge_pb2

POLL_S, STATUS_TIMEOUT_S, CONNECT_S = 0.5, 5.0, 5.0
RESTART_MIN_S, RESTART_MAX_S = 1.0, 30.0
STOP_S = 2.0
STARTING = "the replicas of the analysis are starting"
_CHANNEL = (*UNLIMITED, ("grpc.min_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000))
_LOG = EventLog("serving")


def check_ray_installed() -> None:
    """Raise MissingExtraError without Ray."""
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("analysis.ray.address needs Ray: pip install 'vedette[scale]'.")


class ReplicaSet:
    """Replicas of one service's analysis.

    `problem`: why no sample can be judged, empty otherwise. `running`: number of running replicas. `on_change` is
    called after each change of `problem`.
    """

    def __init__(
        self, settings: AnalysisSettings, location: StoreLocation, on_change: Callable[[], Awaitable[None]]
    ) -> None:
        check_ray_installed()
        self._on_change = on_change
        self._folder = Path(tempfile.mkdtemp(prefix="vedette-"))  # short: a socket's path has at most 107 bytes
        self._options = _front_options(settings, location, self._folder)
        self._part_size = settings.batch_size
        self._channel = grpc.insecure_channel(self._options.target, options=_CHANNEL)
        self._judge = self._channel.unary_unary(
            f"/{SERVICE}/{JUDGE}",
            request_serializer=judge_pb2.JudgeRequest.SerializeToString,
            response_deserializer=judge_pb2.JudgeReply.FromString,
        )
        self._status = self._channel.unary_unary(
            f"/{SERVICE}/{STATUS}",
            request_serializer=judge_pb2.StatusRequest.SerializeToString,
            response_deserializer=judge_pb2.StatusReply.FromString,
        )
        self._child: SupervisedProcess | None = None
        self.problem, self.running = STARTING, 0

    def judge_of(self, bundle: Bundle, trusted_keys: Iterable[Ed25519PublicKey]) -> RemoteJudge:
        """Return the analysis of a bundle, which one replica has loaded. Blocking.

        Raises BundleError, StorageError or ConnectionFailedError as `RemoteJudge.load`.
        """
        reference = bundle_reference(bundle.manifest, trusted_keys)
        replicas = self._options.scale.max_replicas
        judge = RemoteJudge(reference, lambda each: self._send(each), part_size=self._part_size, replicas=replicas)
        judge.load()
        return judge

    async def run(self) -> None:
        """Keep the process between service and cluster running until cancelled."""
        backoff = Backoff(RESTART_MIN_S, RESTART_MAX_S)
        while True:
            if reason := await _unreachable(self._options.address):
                await self._set_problem(reason)
            else:
                await self._run_child(backoff)
            await asyncio.sleep(backoff.next_s())

    async def _run_child(self, backoff: Backoff) -> None:
        """Run the process until it ends."""
        self._child = self._start()
        while self._child.exit_code() is None:
            await self._look()
            if not self.problem:
                backoff.reset()
            await asyncio.sleep(POLL_S)
        self.running = 0
        await self._set_problem(_end_of(self._child))
        await asyncio.to_thread(self._child.stop, STOP_S)

    def stop(self) -> None:
        """End the process, and a local cluster with it; waiting requests fail. Blocking."""
        self._channel.close()
        if self._child is not None:
            self._child.stop(STOP_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> SupervisedProcess:
        for left in self._folder.iterdir():  # of a cluster that has ended
            with contextlib.suppress(OSError):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        return SupervisedProcess(
            [sys.executable, "-m", "cloud.serving.replicas.front", self._options.to_json()],
            log=self._folder / "front.log",
            environment=_environment(self._options.address),
            folder=self._folder,
            until_eof=True,
        )

    async def _look(self) -> None:
        """Ask the process for the state of the replicas."""
        try:
            reply = await asyncio.to_thread(self._status, judge_pb2.StatusRequest(), timeout=STATUS_TIMEOUT_S)
        except (grpc.RpcError, ValueError):  # it is starting or ending, or the channel is closed
            self.running = 0
            await self._set_problem(self.problem or "the process for the Ray cluster does not answer")
            return
        self.running = reply.running_replicas
        await self._set_problem(reply.problem)

    async def _set_problem(self, problem: str) -> None:
        if problem == self.problem:
            return
        self.problem = problem
        if problem:
            _LOG.error("replicas_unreachable", reason=problem)
        else:
            _LOG.info("replicas_ready", replicas=self.running)
        await self._on_change()

    def _send(self, requests: Sequence[judge_pb2.JudgeRequest]) -> list[judge_pb2.JudgeReply]:
        """Return the replies to requests sent at the same time, in order; raises ConnectionFailedError. Blocking."""
        calls: list[grpc.Future[judge_pb2.JudgeReply]] = []
        try:
            calls += [self._judge.future(request) for request in requests]
            return [call.result() for call in calls]
        except (grpc.RpcError, grpc.FutureCancelledError, ValueError) as error:
            for call in calls:
                call.cancel()
            reason = self.problem or (error.details() if isinstance(error, grpc.Call) else str(error))
            raise ConnectionFailedError(
                f"The replicas of the analysis cannot be reached ({reason}). Samples wait until they can."
            ) from None


def replica_set(
    settings: AnalysisSettings, location: StoreLocation, on_change: Callable[[], Awaitable[None]]
) -> ReplicaSet | None:
    """Return the replicas of the settings, None where the service judges by itself; raises MissingExtraError."""
    return ReplicaSet(settings, location, on_change) if settings.ray.address else None


async def _unreachable(address: str) -> str:
    """Return why the head of the cluster cannot be reached, empty if it can: Ray itself tries for minutes."""
    if address == "local":
        return ""
    head = Address.parse(address)
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(head.host, head.port)
    except (OSError, TimeoutError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        return f"the Ray cluster at {address} cannot be reached ({reason})"
    writer.close()
    return ""


def _end_of(child: SupervisedProcess) -> str:
    code = child.exit_code()
    if code is not None and code < 0:
        return f"the process for the Ray cluster was ended by signal {-code}"
    return child.last_error().removeprefix("error: ")


def _front_options(settings: AnalysisSettings, location: StoreLocation, folder: Path) -> FrontOptions:
    chosen = settings.ray
    return FrontOptions(
        folder=str(folder),
        address=chosen.address,
        application=chosen.application,
        version=version("vedette"),
        replica=ReplicaOptions(
            data_dir=str(location.data_dir.absolute()),
            bundles_url=location.bundles_url,
            device=settings.device,
            precision=settings.precision,
            compiled=settings.compile,
            false_alarm_rate=settings.false_alarm_rate,
            cached_bundles=settings.cached_bundles,
            cached_bytes=settings.cached_bytes,
            request_s=chosen.request_s,
        ),
        scale=ReplicaScale(chosen.min_replicas, chosen.max_replicas, chosen.gpus_per_replica, chosen.cpus_per_replica),
    )


def _environment(address: str) -> dict[str, str]:
    """Return the variables of the process: no telemetry; a local cluster gets the loopback and a token of its own."""
    # Ray's default, stated because Ray warns otherwise: replicas without GPUs of their own see none.
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
    if address == "local":
        # The name is of other systems, but on Linux too this keeps every port of the cluster on the loopback.
        environment |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return environment
