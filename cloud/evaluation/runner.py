"""Benchmark units in worker processes, each kept on disk when it is finished, so that a stopped run resumes.

A unit is one set, one variant of the protocol and one seed. Its file is named after all of it and a hash of what its
figures rest on: settings, data, and the code that computes them.
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
from shared.child_process import JsonLinesProcess, NoAnswerError
from shared.errors import StorageError
from shared.files import write_durably

# Of the packages `cloud` and `shared`: what no figure depends on.
_NOT_COUNTED = ("console", "demo", "federation", "service", "store")
_SHOWN = ("bench.py", "commands.py", "page.py", "plots", "published.py", "runner.py", "evaluate.py", "report.py")


@dataclass(frozen=True, slots=True)
class Unit:
    """What is computed at one go. `settings`: those of training, as JSON values."""

    benchmark: str
    set_name: str
    path: Path
    variant: str
    seed: int
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """A unit and its figures by method with facts of its run, or the error it ended in."""

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
    """The results of all units, in order; those found on disk are not computed again.

    `progress` gets how many are done, and the last result. `jobs`: worker processes. A unit that fails, or whose
    process dies, is a result with an error; the others go on. Raises StorageError if `work` cannot be written.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{work}: cannot be made ({error}). Give --work another folder.") from None
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
    """A hash of the code that figures depend on."""
    digest = hashlib.sha256()
    for package in (cloud, shared):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            inner = path.relative_to(root).parts
            if inner[0] in _NOT_COUNTED or (inner[0] == "evaluation" and inner[1] in _SHOWN):
                continue
            digest.update("/".join(inner).encode() + path.read_bytes())
    return digest.hexdigest()


def _compute(units: Sequence[Unit], missing: Sequence[int], jobs: int, log: Path) -> Iterator[tuple[int, Result]]:
    """Results of units as they are finished."""
    if not missing:
        return
    crew = _Crew(log)
    with ThreadPoolExecutor(min(jobs, len(missing))) as pool:
        pending: dict[Future[Result], int] = {pool.submit(crew.run, units[index]): index for index in missing}
        try:
            while pending:
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield pending.pop(future), future.result()
        finally:
            for future in pending:
                future.cancel()
            crew.dismiss()


class _Crew:
    """A worker process for each thread that asks, replaced when it dies."""

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
            reason = _how(error.exit_code)
            return Result(unit, {}, {}, error=f"its process ended ({reason}); see {self._log.name} in the work folder")
        return Result(unit, answer.get("figures", {}), answer.get("facts", {}), error=answer.get("error", ""))

    def dismiss(self) -> None:
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
    """The worker's: our own packages where they are, and one thread for linear algebra unless set otherwise."""
    root = str(Path(str(cloud.__file__)).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH", "")])]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {**threads, **os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _read(unit: Unit, file: Path) -> Result | None:
    """What an earlier run left; nothing if there is none, or it is no result."""
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
    """What tells the data from other data of the same name: names, sizes and times of change."""
    files = [path] if path.is_file() else sorted(entry for entry in path.rglob("*") if entry.is_file())
    for file in files:
        status = file.stat()
        yield f"{file.relative_to(path.parent)} {status.st_size} {status.st_mtime_ns};"


def _how(code: int | None) -> str:
    if code is None:
        return "its answer cannot be read"
    return f"signal {-code}, perhaps for want of memory" if code < 0 else f"exit code {code}"
