"""Analysis of a service in a child process: networks and ingest do not wait for one another's interpreter.

PyTorch takes and gives the interpreter's lock hundreds of times for a batch. The child works on the same store and
reports what the service must know. One that ends, does not answer, or makes no progress with a batch is replaced; its
samples still wait in the store.
"""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Coroutine
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloud.service.analysis_link import (
    AnalysisLink,
    AnalysisStart,
    doubles_of,
    judged_of,
    parsed_report,
)
from cloud.service.analysis_port import AnalysisListener
from cloud.service.crash_record import CrashRecord
from cloud.serving.replicas.replica_set import STARTING, check_ray_installed
from cloud.settings import CloudSettings
from shared.backoff import Backoff
from shared.errors import ConnectionFailedError, StorageError, VedetteError
from shared.logs import EventLog
from vedette.v1 import analysis_pb2

SILENT_S = 60.0  # without a report, of which there is one a second: the child hangs
WAKE_EVERY_S = 0.005
METRICS_S = 2.0
EXIT_S = 2.0
RESTART_MIN_S, RESTART_MAX_S = 0.5, 30.0
STEADY_S = 30.0  # a child that ran so long is replaced without delay
_LOG = EventLog("service")


class AnalysisProcess:
    """Child process that judges, and its replacement when it ends.

    `problem`: reason why no sample can be judged; empty otherwise, and while the first child starts. `silent_s`: time
    without a sign of life after which a child is replaced.
    """

    def __init__(
        self,
        settings: CloudSettings,
        trusted_key: Ed25519PublicKey,
        claimant: str,
        listener: AnalysisListener,
        *,
        silent_s: float = SILENT_S,
    ) -> None:
        if settings.analysis.ray.address:
            check_ray_installed()
        self._start_message = AnalysisStart(
            settings=settings.analysis,
            location=settings.store,
            trusted_key=trusted_key.public_bytes_raw().hex(),
            claimant=claimant,
            tracing_endpoint=settings.tracing.endpoint,
            takes_events=listener.takes_events,
        )
        self._listener, self._silent_s, self._batch_s = listener, silent_s, settings.analysis.batch_s
        self._record = CrashRecord(settings.data_dir)
        self._process: subprocess.Popen[bytes] | None = None
        self._link: AnalysisLink | None = None
        self._metrics: asyncio.Future[bytes] | None = None
        self._woken_s, self._wakes_soon = 0.0, False
        self.problem = STARTING if settings.analysis.ray.address else ""

    @property
    def pid(self) -> int | None:
        """Process id of the child; None while there is none."""
        return self._process.pid if self._process is not None else None

    def wake(self) -> None:
        """Start the next batch, because samples have arrived; calls close together become one."""
        if self._wakes_soon:
            return
        wait_s = self._woken_s + WAKE_EVERY_S - time.monotonic()
        if wait_s <= 0:
            self._wake_now()
        else:
            self._wakes_soon = True
            asyncio.get_running_loop().call_later(wait_s, self._wake_now)

    def tasks(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Return the work to run until cancelled, by name."""
        return {"analysis_process": self.run()}

    async def metrics_page(self) -> bytes:
        """Return the metrics of the child; nothing while it does not answer."""
        if self._link is None:
            return b""
        if self._metrics is None:
            self._metrics = asyncio.get_running_loop().create_future()
            self._link.send(analysis_pb2.AnalysisCommand(metrics=True))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(METRICS_S):
                return await asyncio.shield(self._metrics)
        return b""

    async def run(self) -> None:
        """Keep a child running until cancelled; `stop` waits for its end."""
        backoff = Backoff(RESTART_MIN_S, RESTART_MAX_S)
        while True:
            started_s = time.monotonic()
            reason = await self._run_child()
            if time.monotonic() - started_s > STEADY_S:
                backoff.reset()
            wait_s = backoff.next_s()
            _LOG.error("analysis_ended", reason=reason, restart_s=wait_s)
            await self._set_problem(f"the analysis process {reason} and is started again")
            await self._listener.on_lost()
            await asyncio.sleep(wait_s)

    def stop(self) -> None:
        """End the child; waits for a running calculation only a moment. Blocking."""
        if self._process is not None:
            _ended(self._process, EXIT_S)
        self._record.close()

    async def _run_child(self) -> str:
        """Run one child to its end; return how it ended."""
        own_end, other_end = socket.socketpair()
        with own_end, other_end:
            try:
                process = self._process = _started(other_end, self._record.descriptor)
            except OSError as error:
                return f"cannot be started ({error.strerror})"
            other_end.close()  # or the child's end would not be seen
            reason = await self._follow(process, own_end)
            code = await asyncio.to_thread(_ended, process, EXIT_S)  # no two children judge at once
            self._record.note_end()
        return reason or _end_of(code)

    async def _follow(self, process: subprocess.Popen[bytes], own_end: socket.socket) -> str:
        """Take the reports of a child until it ends; return how it broke the rules, empty if it just ended."""
        link = self._link = await AnalysisLink.over(own_end)
        try:
            suspects = {"alone": self._record.suspects.alone, "condemned": self._record.suspects.condemned}
            start = self._start_message.model_copy(update=suspects)
            link.send(analysis_pb2.AnalysisCommand(start=start.model_dump_json()))
            while True:
                async with asyncio.timeout(self._silent_s):
                    data = await link.receive()
                if data is None:
                    return ""
                report = parsed_report(data)
                if report.busy_s > self._batch_s:
                    process.kill()
                    return f"made no progress with a batch for {self._batch_s:g} s"
                await self._take(report)
        except ConnectionFailedError as error:
            process.kill()
            return f"was ended ({error})"
        except TimeoutError:
            process.kill()
            return f"gave no sign of life for {self._silent_s:g} s"
        finally:
            link.close()
            self._link = None
            self._answer_metrics(b"")

    async def _take(self, report: analysis_pb2.AnalysisReport) -> None:
        kind = report.WhichOneof("report")
        if kind == "judged":
            self._listener.on_judged(judged_of(report.judged))
        elif kind == "doubles":
            self._listener.on_doubles(doubles_of(report.doubles))
        elif kind == "failure":
            self._listener.on_failure(
                (StorageError if report.failure.is_storage else VedetteError)(report.failure.text)
            )
        elif kind == "problem":
            await self._set_problem(report.problem)
        elif kind == "metrics":
            self._answer_metrics(report.metrics)

    def _answer_metrics(self, page: bytes) -> None:
        if self._metrics is not None:
            self._metrics.set_result(page)
            self._metrics = None

    async def _set_problem(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            await self._listener.on_readiness()

    def _wake_now(self) -> None:
        self._wakes_soon, self._woken_s = False, time.monotonic()
        if self._link is not None:
            self._link.send(analysis_pb2.AnalysisCommand(wake=True))


def _started(end: socket.socket, record: int) -> subprocess.Popen[bytes]:
    """Return a child with this end of the link and the record of its samples.

    Started from the main thread, whose end the kernel reports to it.
    """
    numbers = (os.getpid(), end.fileno(), record)
    command = [sys.executable, "-P", "-m", "cloud.service.analysis_child", *map(str, numbers)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(end.fileno(), record))


def _ended(process: subprocess.Popen[bytes], wait_s: float) -> int:
    """Return the exit code of a process, which is killed if it does not end in time. Blocking."""
    try:
        return process.wait(wait_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _end_of(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
