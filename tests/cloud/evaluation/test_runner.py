"""Worker processes: a dead worker loses only its own unit."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cloud.evaluation import runner
from cloud.evaluation.runner import Result, Unit, run_units

WORKER = """
import json, os, sys
for line in sys.stdin:
    unit = json.loads(line)
    if unit["seed"] == 1:
        os.kill(os.getpid(), 9)
    if unit["seed"] == 2:
        print(json.dumps({"error": "too few rows"}), flush=True)
    else:
        print(json.dumps({"figures": {"fused": {"auroc": unit["seed"] / 10}}, "facts": {}}), flush=True)
"""


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Unit]:
    """Return four units; the worker crashes on one and reports an error on another."""
    np.save(tmp_path / "data.npy", np.zeros(3))
    package = tmp_path / "cloud" / "evaluation"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "worker.py").write_text(WORKER)
    monkeypatch.setattr(runner, "_environment", lambda: {"PYTHONPATH": str(tmp_path)})
    return [Unit("adbench", "set/a b", tmp_path / "data.npy", "published", seed, {}) for seed in range(4)]


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_dead_worker_is_a_failed_unit_and_the_rest_is_kept(tmp_path: Path, units: list[Unit], jobs: int) -> None:
    work, seen = tmp_path / "work", []
    results = run_units(units, work, jobs=jobs, progress=lambda done, result: seen.append((done, result.resumed)))
    assert [result.unit.seed for result in results] == [0, 1, 2, 3]
    assert "signal 9" in results[1].error
    assert results[2].error == "too few rows"
    assert results[3].figures == {"fused": {"auroc": 0.3}}
    assert sorted(done for done, _ in seen) == [1, 2, 3, 4]
    assert len(list(work.glob("adbench-set_a_b-published-seed*.json"))) == 2

    again = run_units(units, work, jobs=jobs)
    assert [result.resumed for result in again] == [True, False, False, True]


def test_changed_settings_data_or_code_are_recomputed(
    tmp_path: Path, units: list[Unit], monkeypatch: pytest.MonkeyPatch
) -> None:
    unit, work = units[3], tmp_path / "work"

    def resumes(asked: Unit) -> bool:
        (result,) = run_units([asked], work)
        return result.resumed

    assert not resumes(unit)
    assert resumes(unit)
    assert not resumes(Unit(unit.benchmark, unit.set_name, unit.path, unit.variant, unit.seed, {"seed": 1}))
    np.save(unit.path, np.zeros(4))
    assert not resumes(unit)
    monkeypatch.setattr(runner, "code_fingerprint", lambda: "other")
    assert not resumes(unit)


def test_a_worker_loads_no_module_that_kept_results_do_not_depend_on() -> None:
    code = """
import cloud.evaluation.labels, cloud.evaluation.methods, cloud.evaluation.video, cloud.evaluation.worker, sys
print(*(module.__file__ for name, module in sys.modules.items() if name.startswith(("cloud.", "shared."))))
"""
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    inner = [Path(path).relative_to(root).parts[1:] for path in done.stdout.split()]
    assert ("evaluation", "methods.py") in inner
    assert [parts for parts in inner if not runner.is_related(parts)] == []


def test_results_have_no_error_by_default(units: list[Unit]) -> None:
    assert Result(units[0], {}, {}).error == ""
