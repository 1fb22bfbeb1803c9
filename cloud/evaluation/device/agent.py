"""Measurement of the agent (`vedette edge run`) in a process of its own, from the outside."""

import contextlib
import json
import os
import shutil
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloud.evaluation.device.workload import Workload
from cloud.modalities import cloud_modality
from shared.errors import VedetteError
from shared.supervision import SupervisedProcess, interrupts_deferred

POLL_S = 0.01
# A new buffer takes every other accepted window, one that has run for a year hardly any. A small buffer settles soon.
BUFFER_CAPACITY = 64
START_TIMEOUT_S, CALL_TIMEOUT_S = 120.0, 120.0
SETTLE_S = 0.5  # from the first screened batch to the start of the measurement
_RESET_FILES = ("spool.db", "spool.db-wal", "spool.db-shm", "counters.json", "status.json")


@dataclass(frozen=True, slots=True)
class AgentRun:
    """Measurements of one run of the agent.

    Attributes:
        samples_per_s: screened samples per second.
        cpu_us: CPU time of all threads per sample, in microseconds.
        start_s: time from the command to the first screened batch; `start_cpu_s` is the CPU time.
        peak_mib: peak resident memory.
        loads_torch: whether the process loaded PyTorch.
        forwarded_share: share of the screened samples that went to the spool.
    """

    samples_per_s: float
    cpu_us: float
    start_s: float
    start_cpu_s: float
    peak_mib: float
    loads_torch: bool
    forwarded_share: float


@dataclass(frozen=True, slots=True)
class _Snapshot:
    counters: dict[str, int]
    at_s: float
    cpu_s: float


class BenchDevice:
    """Enrolled device in a folder. Its link is down, so forwarded samples stay in its spool."""

    def __init__(self, workload: Workload, folder: Path) -> None:
        """Enrol the device at a service that runs only for the enrolment."""
        self._workload, self._folder = workload, folder
        self._state, self.config = folder / "state", folder / "edge.toml"
        self._log, self._bundle = folder / "agent.log", folder / "bundle.vedette"
        folder.mkdir(parents=True, exist_ok=True)
        self._bundle.write_bytes(workload.bundle.archive(edge_only=True))  # the part that devices fetch
        self.configure("auto")
        self._enrol()

    def configure(self, artefact: str) -> None:
        """Write `edge.toml` with a source that repeats the samples as fast as the agent screens them."""
        source = {
            "id": "bench",
            "kind": cloud_modality(self._workload.modality).source_kind,
            "path": str(self._workload.source),
            "bundle": str(self._bundle),
            "artefact": artefact,
            "batch_size": self._workload.batch_size,
            "loop": True,
        }
        lines = [f"state_dir = {json.dumps(str(self._state))}", f"bundle_key = {json.dumps(str(self._workload.key))}"]
        lines += ["[normal_buffer]", f"capacity = {BUFFER_CAPACITY}"]
        lines += ["[[sources]]", *(f"{name} = {json.dumps(value)}" for name, value in source.items())]
        self.config.write_text("\n".join(lines) + "\n")

    def run(self, artefact: str, seconds: float) -> AgentRun:
        """Start the agent, measure it for `seconds`, and stop it.

        Raises VedetteError if the agent stops by itself or is not ready in time.
        """
        self.configure(artefact)
        for name in _RESET_FILES:
            (self._state / name).unlink(missing_ok=True)
        started_s = time.perf_counter()
        agent = self._start("edge", "run", "--config", str(self.config))
        try:
            address = self._wait_for_address(agent)
            while not self._counters(agent, address, started_s)["samples_screened"]:
                self._check(agent, started_s)
                time.sleep(POLL_S)
            start_s, start_cpu_s = time.perf_counter() - started_s, _cpu_s(agent.pid)
            time.sleep(SETTLE_S)
            before = self._next_count(agent, address)
            time.sleep(seconds)
            after = self._next_count(agent, address)
            count = after.counters["samples_screened"] - before.counters["samples_screened"]
            return AgentRun(
                samples_per_s=count / (after.at_s - before.at_s),
                cpu_us=(after.cpu_s - before.cpu_s) / count * 1e6,
                start_s=start_s,
                start_cpu_s=start_cpu_s,
                peak_mib=_peak_mib(agent.pid),
                loads_torch="libtorch" in Path(f"/proc/{agent.pid}/maps").read_text(),
                forwarded_share=(after.counters["samples_spooled"] - before.counters["samples_spooled"]) / count,
            )
        finally:
            agent.stop(5.0)

    def _next_count(self, agent: SupervisedProcess, address: str) -> _Snapshot:
        """Return the counters right after a batch, so that two snapshots enclose whole batches."""
        started_s = time.perf_counter()
        seen = self._counters(agent, address, started_s)["samples_screened"]
        while True:
            time.sleep(POLL_S)
            counters = self._counters(agent, address, started_s)
            if counters["samples_screened"] > seen:
                return _Snapshot(counters, time.perf_counter(), _cpu_s(agent.pid))
            self._check(agent, started_s)

    def _counters(self, agent: SupervisedProcess, address: str, started_s: float) -> dict[str, int]:
        """Return the counters of the agent; raise VedetteError if it no longer answers."""
        while True:
            with contextlib.suppress(OSError, ValueError):
                return dict(_status(address)["counters"])
            self._check(agent, started_s)
            time.sleep(POLL_S)

    def _enrol(self) -> None:
        cloud, data = self._folder / "cloud.toml", self._folder / "cloud"
        free = [f'{name} = "127.0.0.1:0"' for name in ("listen", "enrolment_listen", "console_listen")]
        cloud.write_text("\n".join([f"data_dir = {json.dumps(str(data))}", *free]) + "\n")
        service = self._start("cloud", "serve", "--config", str(cloud))
        try:
            started_s = time.perf_counter()
            while not (data / "service.json").exists():
                self._check(service, started_s)
                time.sleep(POLL_S)
            token = self._folder / "token.txt"
            token.write_text(self._call("cloud", "token", "bench", "--config", str(cloud)).split()[-1])
            self._call("edge", "enroll", "--config", str(self.config), "--token-file", str(token))
        finally:
            service.stop(5.0)
            shutil.rmtree(data, ignore_errors=True)

    def _wait_for_address(self, agent: SupervisedProcess) -> str:
        """Wait for the agent to publish its metrics address and return it."""
        started_s = time.perf_counter()
        while True:
            with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
                return str(json.loads((self._state / "status.json").read_bytes())["metrics_address"])
            self._check(agent, started_s)
            time.sleep(POLL_S)

    def _call(self, *arguments: str) -> str:
        process = self._start(*arguments)
        started_s = time.perf_counter()
        try:
            while process.exit_code() is None and time.perf_counter() - started_s < CALL_TIMEOUT_S:
                time.sleep(POLL_S)
            if process.exit_code() != 0:
                raise VedetteError(f"vedette {' '.join(arguments[:2])} failed: {process.last_error()}")
            return process.output()
        finally:
            process.stop()

    def _start(self, *arguments: str) -> SupervisedProcess:
        command = [str(Path(sys.executable).with_name("vedette")), *arguments]
        # On devices pip has compiled the package, so bytecode may be cached here, too, after the first start.
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
        with interrupts_deferred():
            return SupervisedProcess(command, log=self._log, environment=environment, folder=self._folder)

    def _check(self, process: SupervisedProcess, started_s: float) -> None:
        if process.exit_code() is not None:
            raise VedetteError(f"A process of the benchmark stopped: {process.last_error()}")
        if time.perf_counter() - started_s > START_TIMEOUT_S:
            raise VedetteError(f"A process of the benchmark was not ready within {START_TIMEOUT_S:.0f} s.")


def _status(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{address}/status", timeout=CALL_TIMEOUT_S) as answer:
        status: dict[str, Any] = json.load(answer)
    return status


def _cpu_s(pid: int) -> float:
    """Return the CPU time of a process and all its threads in seconds.

    These are fields 14 and 15 of its `stat` file, counted from the end of the process name in brackets.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
