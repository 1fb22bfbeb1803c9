"""All figures of the agent on this machine, in one run."""

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
from cloud.evaluation.device.agent import AgentRun, Device
from cloud.evaluation.device.engine_app import bare_rate
from cloud.evaluation.device.rate_worker import RateWorker, rate_worker
from cloud.evaluation.device.requirements import COMPARED, requirements
from cloud.evaluation.device.workload import Workload, generated_workload, given_workload
from cloud.modalities import cloud_modality
from cloud.training.progress import StageProgress
from shared.errors import SettingsError, VedetteError
from shared.modality import Modality

BATCHES, FEW_BATCHES = (1, 2, 4, 8, 16, 32), (1, 4)
VECTOR_BATCHES = tuple(2**power for power in range(13))  # up to 4096, the most that a graph takes
SEARCH_S, SHORT_S = 1.0, 0.5
ROUTED_VECTORS, ROUTED_IMAGES = 200_000, 4_000
ROUTING_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class EdgeBenchmarkOptions:
    """What is asked for. `windows`: time points and channels of each size of a series' windows. `command`: how to ask
    for it again, without machine paths."""

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


def run_edge_benchmark(plan: EdgeBenchmarkOptions, progress: StageProgress) -> dict[str, Any]:
    """All figures as JSON values: by kind of samples under `figures`, beside what is required under `requirements`.

    Raises VedetteError where a part cannot be measured; one without its peer is left out, and said.
    """
    if plan.bundle is None and (plan.data is not None or plan.key is not None):
        raise SettingsError("--data and --key go with --bundle: name the bundle.")
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="vedette-bench-") as place:
        for number, workload in enumerate(_workloads(plan, Path(place), progress)):
            folder = Path(place) / f"device-{number}"
            figures[workload.kind] = _Bench(plan, workload, folder, progress).all()
    return {
        "benchmark": "edge",
        "version": version("vedette"),
        "command": plan.command,
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "openvino": version("openvino"),
        },
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "quick": plan.is_quick,
        "requirements": requirements(figures),
        "figures": figures,
    }


def _workloads(plan: EdgeBenchmarkOptions, place: Path, progress: StageProgress) -> list[Workload]:
    if plan.bundle is not None:
        return [given_workload(plan.bundle, plan.data, plan.key, place)]
    found: list[Workload] = []
    for modality in plan.modalities:
        for window in plan.windows if modality is Modality.SERIES else plan.windows[:1]:
            (folder := place / f"workload-{len(found)}").mkdir()
            found.append(generated_workload(modality, window, folder, plan.config, plan.is_quick, progress))
    return found


class _Bench:
    """The figures of one bundle."""

    def __init__(self, plan: EdgeBenchmarkOptions, workload: Workload, folder: Path, progress: StageProgress) -> None:
        self._plan, self._workload, self._folder, self._progress = plan, workload, folder, progress
        self._artefacts = [item.name for item in workload.bundle.manifest.artefacts if item.precision == "int8"]
        if COMPARED not in self._artefacts:
            raise SettingsError(f"{workload.bundle.manifest.bundle_id} has no artefact {COMPARED} to compare.")
        self._runs: dict[str, list[AgentRun]] = {name: [] for name in self._artefacts}  # with a warm cache
        self._first_starts_s: dict[str, float] = {}
        self._say("enrolling a device", 0.0)
        self._device = Device(workload, folder)
        self._graph = workload.write_graph(COMPARED, folder)

    @property
    def _is_encoded(self) -> bool:
        return cloud_modality(self._workload.modality).has_encoder

    def all(self) -> dict[str, Any]:
        """By kind of figure."""
        found: dict[str, Any] = {"samples": self._samples()}
        found["throughput"] = self._throughput()
        found["footprint"] = {name: self._footprint(name) for name in self._artefacts}
        found["int8"] = self._int8()
        found["routing"] = self._routing()
        if self._is_encoded:
            found["peer"] = self._peer() if self._plan.peer_python is not None else None
        return found

    def _samples(self) -> dict[str, Any]:
        workload = self._workload
        return {
            "batch_size": workload.batch_size,
            "sample": list(workload.sample_shape),
            "engine_input": workload.shape(1)[1:],
        }

    def _throughput(self) -> dict[str, Any]:
        """The agent on each INT8 artefact beside the bare engine on that of OpenVINO, in turns.

        The bare engine has the agent's batch size, and then the one that is its best.
        """
        for name in self._artefacts:
            self._say(f"a first start, {name}", 0.0)
            self._first_starts_s[name] = self._device.run(name, SHORT_S).start_s  # after it the engine's cache is warm
        size = self._workload.batch_size
        sizes = (size // 4, size) if self._plan.is_quick else self._sizes()
        best = self._best_size("the bare engine", lambda rows, s: bare_rate(self._graph, self._shape(rows), s), sizes)
        bare: list[float] = []
        fastest: list[float] = []
        for done in range(self._plan.rounds):
            self._say("throughput, beside the bare engine", done / self._plan.rounds)
            bare.append(bare_rate(self._graph, self._shape(size), self._plan.seconds))
            fastest.append(bare_rate(self._graph, self._shape(best), self._plan.seconds))
            for name in self._artefacts:
                self._runs[name].append(self._device.run(name, self._plan.seconds))
        found: dict[str, Any] = {
            "bare_samples_per_s": statistics.median(bare),
            "bare_best_batch_size": best,
            "bare_best_samples_per_s": statistics.median(fastest),
        }
        for name, runs in self._runs.items():
            rates = [run.samples_per_s for run in runs]
            found[name] = {
                "samples_per_s": statistics.median(rates),
                "ratio": _ratio(rates, bare),
                "ratio_to_best": _ratio(rates, fastest),
                "cpu_us_per_sample": statistics.median(run.cpu_us for run in runs),
                "travelled_share": statistics.median(run.travelled for run in runs),
            }
        return found

    def _sizes(self) -> tuple[int, ...]:
        return BATCHES if self._is_encoded else VECTOR_BATCHES

    def _shape(self, batch_size: int) -> list[int]:
        return self._workload.shape(batch_size)

    def _footprint(self, artefact: str) -> dict[str, Any]:
        """What the agents of the rounds took, each with this one bundle and a warm cache."""
        runs = self._runs[artefact]
        return {
            "peak_resident_mib": max(run.peak_mib for run in runs),
            "start_s": statistics.median(run.start_s for run in runs),
            "start_cpu_s": statistics.median(run.start_cpu_s for run in runs),
            "first_start_s": self._first_starts_s[artefact],
            "loads_torch": any(run.loads_torch for run in runs),
        }

    def _int8(self) -> dict[str, Any]:
        """The fastest INT8 artefact beside FP32 PyTorch eager, each at its best batch size; of vectors both at 1."""
        sizes = (FEW_BATCHES if self._plan.is_quick else BATCHES) if self._is_encoded else (1,)
        hint = "throughput" if self._is_encoded else "latency"
        with ExitStack() as stack:
            eager = stack.enter_context(self._worker("eager"))
            sides: dict[str, Callable[[int, float], float]] = {"eager": eager.rate}
            for name in self._artefacts:
                if name == COMPARED:
                    sides[name] = lambda size, s: bare_rate(self._graph, self._shape(size), s, hint)
                else:
                    sides[name] = stack.enter_context(self._worker(name)).rate
            best = {name: self._best_size(name, rate, sizes) for name, rate in sides.items()}
            rates: dict[str, list[float]] = {name: [] for name in sides}
            for done in range(self._plan.rounds):
                self._say("INT8, beside PyTorch", done / self._plan.rounds)
                for name, rate in sides.items():
                    rates[name].append(rate(best[name], self._plan.seconds))
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
        """The batch size that is fastest."""
        if len(sizes) == 1:
            return sizes[0]
        self._say(f"the best batch size of {name}", 0.0)
        return max(sizes, key=lambda size: rate(size, SEARCH_S))

    def _worker(self, what: str) -> AbstractContextManager[RateWorker]:
        command = [sys.executable, "-P", "-m", "cloud.evaluation.device.rates"]
        name = "FP32 PyTorch" if what == "eager" else what
        workload = self._workload
        settings = {
            "what": what,
            "bundle": str(workload.path),
            "key": str(workload.key),
            "shape": workload.shape(1),
        }
        return rate_worker(name, command, settings)

    def _peer(self) -> dict[str, Any]:
        """The agent beside anomalib's PaDiM, whose bare graph runs at its best batch size, in turns."""
        python = self._plan.peer_python
        assert python is not None
        height, width = self._workload.shape(1)[1:3]
        self._say("starting the peer", 0.0)
        with rate_worker(
            "The peer, PaDiM", [python, Path(str(padim.__file__))], {"height": height, "width": width}
        ) as peer:
            size = self._best_size("PaDiM", peer.rate, FEW_BATCHES if self._plan.is_quick else BATCHES)
            ours: list[float] = []
            theirs: list[float] = []
            for done in range(self._plan.rounds):
                self._say("the agent, beside PaDiM", done / self._plan.rounds)
                theirs.append(peer.rate(size, self._plan.seconds))
                ours.append(self._device.run(COMPARED, self._plan.seconds).samples_per_s)
        return {
            "agent_samples_per_s": statistics.median(ours),
            "padim_batch_size": size,
            "padim_samples_per_s": statistics.median(theirs),
            "ratio": _ratio(ours, theirs),
        }

    def _routing(self) -> dict[str, float]:
        """CPU time of router and spool, by the agent's own module."""
        self._say("router and spool", 0.0)
        self._device.configure(COMPARED)
        samples = (ROUTED_IMAGES if self._is_encoded else ROUTED_VECTORS) // (20 if self._plan.is_quick else 1)
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
            raise VedetteError(f"Router and spool did not end within {ROUTING_TIMEOUT_S:.0f} s.") from None
        try:
            found: dict[str, float] = json.loads(done.stdout)
        except ValueError:
            said = (done.stderr.strip() or "it said nothing").splitlines()[-1]
            raise VedetteError(f"Router and spool could not be measured: {said}") from None
        return found

    def _say(self, stage: str, share: float) -> None:
        self._progress(f"{self._workload.kind}: {stage}", share)


def _ratio(ours: list[float], theirs: list[float]) -> float:
    """The median over the rounds of the ratio within each."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
