"""Benchmark run: list of units, and their results as means over seeds and data sets."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from cloud.evaluation.protocols import MIN_ROWS, PUBLISHED, WITHOUT_BOOTSTRAP, DataSet, find_sets, is_small
from cloud.evaluation.published import PublishedFigures, published_figures
from cloud.evaluation.runner import Result, Unit, run_units
from cloud.training.progress import StageClock, StageProgress
from cloud.training.settings import TrainingSettings
from shared.errors import DataError, SettingsError

HEADLINE = {"adbench": "auroc", "series": "vus_pr", "images": "auroc", "video": "auroc", "labels": "auroc"}
MAX_SEEDS = 1000
LARGE_SETS = f"n_at_least_{MIN_ROWS}"

Figures = dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class BenchmarkOptions:
    """Options of a benchmark run. `command`: the command line that repeats it, without paths of this machine."""

    benchmark: str
    data: Path
    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    jobs: int
    work: Path
    settings: TrainingSettings
    command: str


def run_benchmark(options: BenchmarkOptions, progress: StageProgress | None = None) -> dict[str, Any]:
    """Run a benchmark and return all results as JSON values.

    The keys are `sets`, `mean`, the options of the run and the published results. A failed set is listed under `failed`
    and excluded from all means. Raises DataError if every set failed, or if none suits the benchmark.
    """
    sets, small, broken = _checked_sets(options)
    units = _units(options, sets, small)

    clock = StageClock()

    def report(done: int, result: Result) -> None:
        if progress is not None:
            clock.update("runs", done / len(units))
            left = f", {words}" if (words := clock.remaining()) else ""
            state = f" (failed: {result.error})" if result.error else " (resumed)" if result.resumed else ""
            progress(f"{done} of {len(units)}: {result.unit.set_name}{state}{left}", done / len(units))

    clock.update("runs", 0.0)
    if progress is not None and units:
        progress(f"{len(units)} runs of {len(sets)} sets", 0.0)
    results = run_units(units, options.work, jobs=options.jobs, progress=report)
    failed = broken | failures(results)
    if len(failed) == len(sets) + len(broken):
        name, reason = next(iter(failed.items()))
        raise DataError(f"Every set failed; {name}: {reason}")
    published = published_figures(
        options.benchmark, options.data, [item.name for item in sets if item.name not in failed]
    )
    return _summary(options, results, small, failed, published)


def mean_over(figures: Sequence[Figures]) -> Figures:
    """Return the mean of each figure by method, over the seeds or sets that have it.

    `recall_kept_*` is the ratio of mean recalls, because the ratio on a single set is meaningless where the cloud finds
    almost nothing.
    """
    methods = list(dict.fromkeys(method for result in figures for method in result))
    means: Figures = {}
    for method in methods:
        values = [result[method] for result in figures if method in result]
        keys = list(dict.fromkeys(key for row in values for key in row))
        means[method] = {key: float(np.mean([row[key] for row in values if key in row])) for key in keys}
    cloud_only = means.get("cloud_only", {})
    for routing in means.values():
        for key in [key for key in routing if key.startswith("recall_kept")]:
            recall = key.replace("recall_kept", "recall")
            if cloud_only.get(recall):
                routing[key] = routing[recall] / cloud_only[recall]
    return means


def failures(results: Sequence[Result]) -> dict[str, str]:
    """Return the first error of each set that failed under the published protocol, by set name."""
    failed: dict[str, str] = {}
    for result in results:
        if result.error and result.unit.variant == PUBLISHED:
            reason = one_line_without_folders(result.error, result.unit.path)
            failed.setdefault(result.unit.set_name, f"seed {result.unit.seed}: {reason}")
    return failed


def one_line_without_folders(text: str, path: Path) -> str:
    """Return a message on one line, with the file name in place of the full path."""
    return re.sub(r"\s+", " ", text.replace(str(path), path.name))


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse a number of seeds (`5`: seeds 0 to 4) or a list of seeds (`0,3,7`, `4,`).

    Raises SettingsError for any other text.
    """
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0 or max(numbers) >= 2**32 or (numbers == [0] and "," not in text):
        raise SettingsError(f"--seeds {text}: give the number of seeds (5) or a list of seeds (0,3,7).")
    if "," in text:
        return tuple(dict.fromkeys(numbers))
    if numbers[0] > MAX_SEEDS:
        raise SettingsError(
            f"--seeds {text}: at most {MAX_SEEDS} seeds; for that seed alone, give --seeds {numbers[0]},"
        )
    return tuple(range(numbers[0]))


def _checked_sets(options: BenchmarkOptions) -> tuple[list[DataSet], set[str], dict[str, str]]:
    """Return the usable sets, the names of those that the protocol bootstraps, and the error of each other set.

    Sets that are too small for the benchmark of labels are left out, unless they are named. Raises DataError if no set
    is left.
    """
    usable: list[DataSet] = []
    small: set[str] = set()
    broken: dict[str, str] = {}
    for item in find_sets(options.benchmark, options.data, options.datasets):
        try:
            too_few = _too_few_samples(options.benchmark, item.path)
            if options.benchmark == "adbench" and is_small(item.path):
                small.add(item.name)
        except DataError as error:
            broken[item.name] = one_line_without_folders(str(error), item.path)
            continue
        if not too_few:
            usable.append(item)
        elif options.datasets:
            broken[item.name] = too_few
    if not usable and not broken:
        raise DataError(f"{options.data}: every set is too small for this benchmark.")
    return usable, small, broken


def _too_few_samples(benchmark: str, path: Path) -> str:
    """Return why a set is too small for the benchmark of labels; empty for every other set and benchmark."""
    if benchmark != "labels":
        return ""
    from cloud.evaluation.labels import TOO_FEW, has_enough

    return "" if has_enough(path) else TOO_FEW


def _units(options: BenchmarkOptions, sets: Sequence[DataSet], small: set[str]) -> list[Unit]:
    """Return one unit per set and seed; small sets get a second unit without the bootstrap.

    The first seed of every set comes first.
    """
    settings = options.settings.model_dump(mode="json")
    return [
        Unit(options.benchmark, item.name, item.path, variant, seed, settings)
        for seed in options.seeds
        for item in sets
        for variant in ((PUBLISHED, WITHOUT_BOOTSTRAP) if item.name in small else (PUBLISHED,))
    ]


def _summary(
    options: BenchmarkOptions,
    results: Sequence[Result],
    small: set[str],
    failed: Mapping[str, str],
    published: PublishedFigures | None,
) -> dict[str, Any]:
    sets = _by_set(results, PUBLISHED, failed)
    without_bootstrap = _by_set(results, WITHOUT_BOOTSTRAP, {})
    summary: dict[str, Any] = {
        "sets": sets,
        "mean": mean_over(list(sets.values())),
        "benchmark": options.benchmark,
        "command": options.command,
        "version": version("vedette"),
        "seeds": list(options.seeds),
        "headline": HEADLINE[options.benchmark],
        "failed": dict(failed),
        "facts": _facts(results),
        "settings": options.settings.model_dump(mode="json"),
        "published": None if published is None else asdict(published),
    }
    if options.benchmark == "adbench":
        large = {name: figures for name, figures in sets.items() if name not in small}
        summary[LARGE_SETS] = {"names": list(large), "mean": mean_over(list(large.values()))}
        figures = {**large, **without_bootstrap}
        errors = {
            result.unit.set_name: one_line_without_folders(result.error, result.unit.path)
            for result in results
            if result.error and result.unit.variant == WITHOUT_BOOTSTRAP
        }
        summary["without_bootstrap"] = {"sets": figures, "mean": mean_over(list(figures.values())), "failed": errors}
    return summary


def _by_set(results: Sequence[Result], variant: str, failed: Mapping[str, str]) -> dict[str, Figures]:
    """Return the means over the seeds, by set."""
    by_set: dict[str, list[Figures]] = {}
    for result in results:
        if result.unit.variant == variant and not result.error and result.unit.set_name not in failed:
            by_set.setdefault(result.unit.set_name, []).append(result.figures)
    return {name: mean_over(figures) for name, figures in sorted(by_set.items(), key=lambda item: item[0].lower())}


def _facts(results: Sequence[Result]) -> dict[str, Any]:
    """Return the facts of the first seed of each set under the published protocol."""
    facts: dict[str, Any] = {}
    for result in results:
        if result.unit.variant == PUBLISHED and not result.error:
            facts.setdefault(result.unit.set_name, result.facts)
    return facts
