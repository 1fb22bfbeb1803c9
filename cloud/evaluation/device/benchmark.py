"""Benchmark of the agent on this machine: throughput, footprint, INT8 speed-up, routing cost and peer."""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cloud.evaluation.device import padim
from cloud.evaluation.device.agent import AgentRun, BenchDevice
from cloud.evaluation.device.engine_app import bare_rate
from cloud.evaluation.device.rate_worker import RateWorker, rate_worker
from cloud.evaluation.device.requirements import COMPARED_ARTEFACT, requirements
from cloud.evaluation.device.workload import Workload, generated_workload, given_workload
from cloud.modalities import cloud_modality
from cloud.training.progress import StageProgress
from shared.errors import SettingsError, VedetteError
from shared.modality import Modality

BATCH_SIZES, QUICK_BATCH_SIZES = (1, 2, 4, 8, 16, 32), (1, 4)
VECTOR_BATCH_SIZES = tuple(2**power for power in range(13))  # up to 4096, the maximum batch size of a graph
SEARCH_TURN_S, FIRST_START_TURN_S = 1.0, 0.5
ROUTED_VECTORS, ROUTED_IMAGES = 200_000, 4_000
ROUTING_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class EdgeBenchmarkOptions:
    """Options of an agent benchmark.

    `windows`: time points and channels of the windows of series. `command`: the command line that repeats the run,
    without paths of this machine.
    """

    modalities: tuple[Modality, ...]
    windows: tuple[tuple[int, int], ...]
    bundle: Path | None
    data: Path | None
    key: Path | None
    rounds: int
    seconds: float
    is_quick: bool
    peer_python: Path | None
    config: Path | None
    command: str


def run_edge_benchmark(options: EdgeBenchmarkOptions, progress: StageProgress) -> dict[str, Any]:
    """Run the benchmark and return its results as JSON values.

    `figures` has the measurements by kind of samples, `requirements` compares them with the limits. Without a peer its
    figures are None. Raises VedetteError if a measurement fails.
    """
    if options.bundle is None and (options.data is not None or options.key is not None):
        raise SettingsError("--data and --key need --bundle: give the bundle.")
    if options.peer_python is not None and not os.access(options.peer_python, os.X_OK):
        raise SettingsError(f"{options.peer_python}: not a program. Give the Python of the peer with --peer-python.")
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="vedette-bench-") as place:
        for number, workload in enumerate(_workloads(options, Path(place), progress)):
            folder = Path(place) / f"device-{number}"
            figures[workload.kind] = _BundleBenchmark(options, workload, folder, progress).measure()
    return {
        "benchmark": "edge",
        "version": version("vedette"),
        "command": options.command,
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "openvino": version("openvino"),
        },
        "rounds": options.rounds,
        "seconds": options.seconds,
        "quick": options.is_quick,
        "requirements": requirements(figures),
        "figures": figures,
    }


def _workloads(options: EdgeBenchmarkOptions, place: Path, progress: StageProgress) -> list[Workload]:
    if options.bundle is not None:
        return [given_workload(options.bundle, options.data, options.key, place)]
    workloads: list[Workload] = []
    for modality in options.modalities:
        for window in options.windows if modality is Modality.SERIES else options.windows[:1]:
            (folder := place / f"workload-{len(workloads)}").mkdir()
            workloads.append(generated_workload(modality, window, folder, options.config, options.is_quick, progress))
    return workloads


class _BundleBenchmark:
    """Benchmark of one bundle."""

    def __init__(
        self, options: EdgeBenchmarkOptions, workload: Workload, folder: Path, progress: StageProgress
    ) -> None:
        self._options, self._workload, self._folder, self._progress = options, workload, folder, progress
        self._artefacts = [item.name for item in workload.bundle.manifest.artefacts if item.precision == "int8"]
        if COMPARED_ARTEFACT not in self._artefacts:
            raise SettingsError(
                f"{workload.bundle.manifest.bundle_id} has no artefact {COMPARED_ARTEFACT}, which the benchmark needs."
            )
        self._runs: dict[str, list[AgentRun]] = {name: [] for name in self._artefacts}  # with a warm cache
        self._first_starts_s: dict[str, float] = {}
        self._report("enrolling a device", 0.0)
        self._device = BenchDevice(workload, folder)
        self._graph = workload.write_graph(COMPARED_ARTEFACT, folder)

    @property
    def _is_encoded(self) -> bool:
        return cloud_modality(self._workload.modality).has_encoder

    def measure(self) -> dict[str, Any]:
        """Return all figures by kind."""
        figures: dict[str, Any] = {"samples": self._samples()}
        figures["throughput"] = self._throughput()
        figures["footprint"] = {name: self._footprint(name) for name in self._artefacts}
        figures["int8"] = self._int8()
        figures["routing"] = self._routing()
        if self._is_encoded:
            figures["peer"] = self._peer() if self._options.peer_python is not None else None
        return figures

    def _samples(self) -> dict[str, Any]:
        workload = self._workload
        return {
            "batch_size": workload.batch_size,
            "sample": list(workload.sample_shape),
            "engine_input": workload.shape(1)[1:],
        }

    def _throughput(self) -> dict[str, Any]:
        """Measure the agent on each INT8 artefact, in turns with the bare engine on the OpenVINO artefact.

        The bare engine runs with the agent's batch size and with its own best batch size.
        """
        for name in self._artefacts:
            self._report(f"first start of {name}", 0.0)
            self._first_starts_s[name] = self._device.run(
                name, FIRST_START_TURN_S
            ).start_s  # this warms the engine's cache
        size = self._workload.batch_size
        sizes = (size // 4, size) if self._options.is_quick else self._sizes()
        best = self._best_size("the bare engine", lambda rows, s: bare_rate(self._graph, self._shape(rows), s), sizes)
        bare: list[float] = []
        fastest: list[float] = []
        for done in range(self._options.rounds):
            self._report("throughput of agent and bare engine", done / self._options.rounds)
            bare.append(bare_rate(self._graph, self._shape(size), self._options.seconds))
            at_best = bare[-1] if best == size else bare_rate(self._graph, self._shape(best), self._options.seconds)
            fastest.append(at_best)
            for name in self._artefacts:
                self._runs[name].append(self._device.run(name, self._options.seconds))
        figures: dict[str, Any] = {
            "bare_samples_per_s": statistics.median(bare),
            "bare_best_batch_size": best,
            "bare_best_samples_per_s": statistics.median(fastest),
        }
        for name, runs in self._runs.items():
            rates = [run.samples_per_s for run in runs]
            figures[name] = {
                "samples_per_s": statistics.median(rates),
                "ratio": _ratio(rates, bare),
                "ratio_to_best": _ratio(rates, fastest),
                "cpu_us_per_sample": statistics.median(run.cpu_us for run in runs),
                "forwarded_share": statistics.median(run.forwarded_share for run in runs),
            }
        return figures

    def _sizes(self) -> tuple[int, ...]:
        return BATCH_SIZES if self._is_encoded else VECTOR_BATCH_SIZES

    def _shape(self, batch_size: int) -> list[int]:
        return self._workload.shape(batch_size)

    def _footprint(self, artefact: str) -> dict[str, Any]:
        """Return memory and start of the agent over all rounds, with one bundle and a warm cache."""
        runs = self._runs[artefact]
        return {
            "peak_resident_mib": max(run.peak_mib for run in runs),
            "start_s": statistics.median(run.start_s for run in runs),
            "start_cpu_s": statistics.median(run.start_cpu_s for run in runs),
            "first_start_s": self._first_starts_s[artefact],
            "loads_torch": any(run.loads_torch for run in runs),
        }

    def _int8(self) -> dict[str, Any]:
        """Compare the fastest INT8 artefact with FP32 PyTorch eager.

        Images use the best batch size of each side, vectors batch size 1.
        """
        sizes = (QUICK_BATCH_SIZES if self._options.is_quick else BATCH_SIZES) if self._is_encoded else (1,)
        hint = "throughput" if self._is_encoded else "latency"
        with ExitStack() as stack:
            eager = stack.enter_context(self._worker("eager"))
            sides: dict[str, Callable[[int, float], float]] = {"eager": eager.rate}
            for name in self._artefacts:
                if name == COMPARED_ARTEFACT:
                    sides[name] = lambda size, s: bare_rate(self._graph, self._shape(size), s, hint)
                else:
                    sides[name] = stack.enter_context(self._worker(name)).rate
            best = {name: self._best_size(name, rate, sizes) for name, rate in sides.items()}
            rates: dict[str, list[float]] = {name: [] for name in sides}
            for done in range(self._options.rounds):
                self._report("INT8 and PyTorch", done / self._options.rounds)
                for name, rate in sides.items():
                    rates[name].append(rate(best[name], self._options.seconds))
        fastest = max(self._artefacts, key=lambda name: statistics.median(rates[name]))
        return {
            "artefact": fastest,
            "batch_size": best[fastest],
            "samples_per_s": statistics.median(rates[fastest]),
            "eager_batch_size": best["eager"],
            "eager_samples_per_s": statistics.median(rates["eager"]),
            "ratio": _ratio(rates[fastest], rates["eager"]),
        }

    def _best_size(self, name: str, rate: Callable[[int, float], float], sizes: tuple[int, ...]) -> int:
        """Return the fastest batch size."""
        if len(sizes) == 1:
            return sizes[0]
        self._report(f"best batch size of {name}", 0.0)
        return max(sizes, key=lambda size: rate(size, SEARCH_TURN_S))

    def _worker(self, target: str) -> AbstractContextManager[RateWorker]:
        command = [sys.executable, "-P", "-m", "cloud.evaluation.device.rates"]
        name = "FP32 PyTorch" if target == "eager" else target
        workload = self._workload
        settings = {
            "target": target,
            "bundle": str(workload.path),
            "key": str(workload.key),
            "shape": workload.shape(1),
        }
        return rate_worker(name, command, settings)

    def _peer(self) -> dict[str, Any]:
        """Measure the agent in turns with the bare graph of anomalib's PaDiM at its best batch size."""
        python = self._options.peer_python
        assert python is not None
        height, width = self._workload.shape(1)[1:3]
        self._report("starting the peer", 0.0)
        with rate_worker(
            "The peer, PaDiM", [python, Path(str(padim.__file__))], {"height": height, "width": width}
        ) as peer:
            size = self._best_size("PaDiM", peer.rate, QUICK_BATCH_SIZES if self._options.is_quick else BATCH_SIZES)
            ours: list[float] = []
            theirs: list[float] = []
            for done in range(self._options.rounds):
                self._report("agent and PaDiM", done / self._options.rounds)
                theirs.append(peer.rate(size, self._options.seconds))
                ours.append(self._device.run(COMPARED_ARTEFACT, self._options.seconds).samples_per_s)
        return {
            "agent_samples_per_s": statistics.median(ours),
            "padim_batch_size": size,
            "padim_samples_per_s": statistics.median(theirs),
            "ratio": _ratio(ours, theirs),
        }

    def _routing(self) -> dict[str, float]:
        """Measure the CPU time of router and spool with `edge.routing_cost`."""
        self._report("router and spool", 0.0)
        self._device.configure(COMPARED_ARTEFACT)
        samples = (ROUTED_IMAGES if self._is_encoded else ROUTED_VECTORS) // (20 if self._options.is_quick else 1)
        command = [sys.executable, "-P", "-m", "edge.routing_cost", "--config", str(self._device.config)]
        try:
            done = subprocess.run(
                [*command, "--samples", str(samples)],
                capture_output=True,
                text=True,
                timeout=ROUTING_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise VedetteError(
                f"The measurement of router and spool timed out after {ROUTING_TIMEOUT_S:.0f} s."
            ) from None
        try:
            figures: dict[str, float] = json.loads(done.stdout)
        except ValueError:
            reason = (done.stderr.strip() or "no error message").splitlines()[-1]
            raise VedetteError(f"Router and spool could not be measured: {reason}") from None
        return figures

    def _report(self, stage: str, share: float) -> None:
        self._progress(f"{self._workload.kind}: {stage}", share)


def _ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the median over the rounds of the ratio within each round."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
