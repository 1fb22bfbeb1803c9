"""Runner of benchmark units in worker processes, with results on disk so that a stopped run can resume.

A unit is one set, one variant of the protocol and one seed. The name of its result file contains all three and a hash
of its inputs: settings, data, and the code that computes the figures.
"""

import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloud
import shared
from shared.child_process import JsonLinesProcess
from shared.errors import NoAnswerError, StorageError
from shared.files import write_durably

# Packages and modules of `cloud` and `shared`, and modules of this package, that cannot change a figure.
_UNRELATED_PACKAGES = (
    "api",
    "bench",
    "cli.py",
    "comparison",
    "console",
    "demo",
    "federation",
    "job_process",
    "jobs",
    "rest",
    "retraining",
    "service",
    "store",
)
_UNRELATED_MODULES = (
    "audits",
    "bench.py",
    "command_options.py",
    "commands.py",
    "device",
    "drift",
    "evaluate.py",
    "evaluation_data.py",
    "findings.py",
    "labels_page.py",
    "page.py",
    "plots",
    "published.py",
    "repeats",
    "report.py",
    "result.py",
    "result_files.py",
    "runner.py",
)


@dataclass(frozen=True, slots=True)
class Unit:
    """Unit of work: one set, protocol variant and seed. `settings`: training settings as JSON values."""

    benchmark: str
    set_name: str
    path: Path
    variant: str
    seed: int
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """Result of a unit: its figures by method and facts of the run, or its error."""

    unit: Unit
    figures: dict[str, dict[str, float]]
    facts: dict[str, Any]
    error: str = ""
    resumed: bool = False


def run_units(
    units: Sequence[Unit],
    work: Path,
    *,
    jobs: int = 1,
    progress: Callable[[int, Result], None] | None = None,
) -> list[Result]:
    """Return the results of all units in order; results found in `work` are reused.

    `progress` receives the number of finished units and the last result. `jobs`: number of worker processes. A unit
    that fails, or whose process dies, yields a result with an error; the other units continue. Raises StorageError if
    `work` cannot be created.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{work}: cannot be created ({error}). Give --work another folder.") from None
    code = code_fingerprint()
    files = [work / f"{_label(unit)}-{_fingerprint(unit, code)}.json" for unit in units]
    results: dict[int, Result] = {}

    def finished(index: int, result: Result) -> None:
        results[index] = result
        if progress is not None:
            progress(len(results), result)

    missing = []
    for index, (unit, file) in enumerate(zip(units, files, strict=True)):
        known = _read(unit, file)
        if known is not None:
            finished(index, known)
        else:
            missing.append(index)
    for index, result in _compute(units, missing, jobs, work / "workers.log"):
        if not result.error:
            value = {"figures": result.figures, "facts": result.facts}
            write_durably(files[index], json.dumps(value, allow_nan=False).encode())
        finished(index, result)
    return [results[index] for index in range(len(units))]


def code_fingerprint() -> str:
    """Return a hash of the code that figures depend on."""
    digest = hashlib.sha256()
    for package in (cloud, shared):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            inner = path.relative_to(root).parts
            if is_related(inner):
                digest.update("/".join(inner).encode() + path.read_bytes())
    return digest.hexdigest()


def is_related(inner: Sequence[str]) -> bool:
    """Return whether figures depend on a module; `inner`: its folders and file below `cloud` or `shared`."""
    return inner[0] not in _UNRELATED_PACKAGES and not (inner[0] == "evaluation" and inner[1] in _UNRELATED_MODULES)


def _compute(units: Sequence[Unit], missing: Sequence[int], jobs: int, log: Path) -> Iterator[tuple[int, Result]]:
    """Yield the index and result of each missing unit when it finishes."""
    if not missing:
        return
    workers = _WorkerPool(log)
    with ThreadPoolExecutor(min(jobs, len(missing))) as pool:
        pending: dict[Future[Result], int] = {pool.submit(workers.run, units[index]): index for index in missing}
        try:
            while pending:
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield pending.pop(future), future.result()
        finally:
            for future in pending:
                future.cancel()
            workers.close()


class _WorkerPool:
    """Worker processes, one per calling thread; a dead worker is replaced."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._own = threading.local()
        self._workers: list[JsonLinesProcess] = []
        self._lock = threading.Lock()

    def run(self, unit: Unit) -> Result:
        worker = self._worker()
        request = {
            "benchmark": unit.benchmark,
            "path": str(unit.path),
            "variant": unit.variant,
            "seed": unit.seed,
            "settings": unit.settings,
        }
        try:
            answer = worker.ask(request)
        except NoAnswerError as error:
            self._own.worker = None
            reason = _exit_reason(error.child_exit_code)
            return Result(
                unit, {}, {}, error=f"the worker process ended ({reason}); see {self._log.name} in the work folder"
            )
        return Result(unit, answer.get("figures", {}), answer.get("facts", {}), error=answer.get("error", ""))

    def close(self) -> None:
        with self._lock:
            for worker in self._workers:
                worker.close()
            self._workers.clear()

    def _worker(self) -> JsonLinesProcess:
        worker: JsonLinesProcess | None = getattr(self._own, "worker", None)
        if worker is None:
            command = [sys.executable, "-P", "-m", "cloud.evaluation.worker"]
            with self._log.open("ab") as log:
                worker = JsonLinesProcess(command, stderr=log, environment=_environment())
            self._own.worker = worker
            with self._lock:
                self._workers.append(worker)
        return worker


def _environment() -> dict[str, str]:
    """Return the environment of a worker process.

    PYTHONPATH contains our packages. Linear algebra uses one thread unless the environment already sets the number.
    """
    root = str(Path(str(cloud.__file__)).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH", "")])]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {**threads, **os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _read(unit: Unit, file: Path) -> Result | None:
    """Return the result of an earlier run, or None if the file is missing or invalid."""
    try:
        value = json.loads(file.read_bytes())
        return Result(unit, value["figures"], value["facts"], resumed=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _label(unit: Unit) -> str:
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in unit.set_name)
    return f"{unit.benchmark}-{plain[:80]}-{unit.variant}-seed{unit.seed}"


def _fingerprint(unit: Unit, code: str) -> str:
    digest = hashlib.sha256(code.encode())
    digest.update(json.dumps([unit.settings, unit.variant, unit.seed], sort_keys=True).encode())
    for piece in _identity(unit.path):
        digest.update(piece.encode())
    return digest.hexdigest()[:16]


def _identity(path: Path) -> Iterable[str]:
    """Yield the name, size and modification time of each data file, which identify the data."""
    files = [path] if path.is_file() else sorted(entry for entry in path.rglob("*") if entry.is_file())
    for file in files:
        status = file.stat()
        yield f"{file.relative_to(path.parent)} {status.st_size} {status.st_mtime_ns};"


def _exit_reason(code: int | None) -> str:
    if code is None:
        return "invalid answer"
    return f"signal {-code}, possibly out of memory" if code < 0 else f"exit code {code}"
