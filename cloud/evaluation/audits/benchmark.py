"""Benchmark `vedette bench audit`: coverage and tightness of the bound, and the upload that a limit asks for."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from cloud.evaluation.audits.coverage import USED, coverage, tightness
from cloud.evaluation.audits.populations import Population, drawn_population, measured_populations
from cloud.evaluation.audits.upload import CHECKPOINTS, deployments, simulate
from cloud.training.progress import StageProgress

REQUIRED_COVERAGE, REQUIRED_RATIO, AIMED_RATIO = 0.95, 1.5, 1.2
TABLES, DRAWN = "tables", "drawn"


@dataclass(frozen=True, slots=True)
class AuditBenchmarkOptions:
    """Options of a run. `data`: folder with ADBench tables, or None. `command`: the line that repeats it."""

    runs: int
    audits: int
    data: Path | None
    seed: int
    command: str


def run_audit_benchmark(options: AuditBenchmarkOptions, progress: StageProgress) -> dict[str, Any]:
    """Return all results as JSON values; raises DataError for a folder without a usable table."""
    random = np.random.default_rng(options.seed)
    populations: dict[str, list[Population]] = {}
    if options.data is not None:
        progress("p-values of tables", 0.0)
        populations[TABLES] = measured_populations(options.data)
    progress("coverage of the bounds", 0.4)
    covered = coverage(options.runs, options.audits, random)
    progress("width of the bounds", 0.7)
    widths = tightness(random)
    populations[DRAWN] = [drawn_population(random) for _ in range(options.runs)]
    upload: dict[str, Any] = {}
    for name, of_kind in populations.items():
        progress(f"upload, {name}", 0.8)
        chosen = deployments(of_kind, options.runs, random)
        upload[name] = {
            "populations": len(of_kind),
            "oracle_median": float(np.median(chosen.oracle)),
            "limits": np.unique(chosen.limits).tolist(),
            "by_audits": simulate(chosen, random),
        }
    return {
        "benchmark": "audit",
        "command": options.command,
        "version": version("vedette"),
        "runs": options.runs,
        "audits": options.audits,
        "coverage": covered,
        "width": widths,
        "upload": upload,
        "requirements": _requirements(covered, upload),
    }


def _requirements(covered: dict[str, dict[str, float]], upload: dict[str, Any]) -> dict[str, Any]:
    """Return the least coverage, and the number of audits from which the median ratio is met, by population."""
    met: dict[str, Any] = {"coverage": min(covered[USED].values()), "coverage_required": REQUIRED_COVERAGE}
    for name, result in upload.items():
        for ratio in (REQUIRED_RATIO, AIMED_RATIO):
            met[f"{name}_audits_for_{ratio}"] = _first_within(result["by_audits"], ratio)
    return met


def _first_within(by_audits: dict[str, dict[str, float | None]], ratio: float) -> int | None:
    for checkpoint in CHECKPOINTS:
        found = by_audits[str(checkpoint)]
        median = found["upload_ratio_median"]
        if median is not None and median <= ratio and (found["without_a_threshold"] or 0.0) < 0.5:
            return checkpoint
    return None
