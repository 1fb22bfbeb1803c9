"""A benchmark run: which units there are, and their results as means over seeds and sets."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from cloud.evaluation.protocols import AS_THEY_ARE, PUBLISHED, SMALLEST, DataSet, find_sets, is_small
from cloud.evaluation.published import Published, published_figures
from cloud.evaluation.runner import Result, Unit, run_units
from cloud.training.progress import StageProgress
from cloud.training.settings import TrainingSettings
from shared.errors import DataError, SettingsError

HEADLINE = {"adbench": "auroc", "series": "vus_pr", "images": "auroc", "video": "auroc"}
LARGE_SETS = f"n_at_least_{SMALLEST}"

Figures = dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class BenchmarkOptions:
    """What is asked for. `command`: how to ask for it again, without machine paths."""

    benchmark: str
    data: Path
    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    jobs: int
    work: Path
    settings: TrainingSettings
    command: str


def run_benchmark(plan: BenchmarkOptions, progress: StageProgress | None = None) -> dict[str, Any]:
    """All results as JSON values: `sets`, `mean`, and beside them how they were made and what is published.

    A set that fails is named under `failed` and stands in no mean. Raises DataError if every set failed.
    """
    sets = find_sets(plan.benchmark, plan.data, plan.datasets)
    small, broken = _small_sets(plan.benchmark, sets)
    units = _units(plan, [item for item in sets if item.name not in broken], small)

    def report(done: int, result: Result) -> None:
        if progress is not None:
            state = f" (failed: {result.error})" if result.error else " (kept from before)" if result.resumed else ""
            progress(f"{done} of {len(units)}: {result.unit.set_name}{state}", done / len(units))

    if progress is not None and units:
        progress(f"{len(units)} runs of {len(sets)} sets", 0.0)
    results = run_units(units, plan.work, jobs=plan.jobs, progress=report)
    failed = broken | failures(results)
    if len(failed) == len(sets):
        name, reason = next(iter(failed.items()))
        raise DataError(f"Every set failed; {name}: {reason}")
    published = published_figures(plan.benchmark, plan.data, [item.name for item in sets if item.name not in failed])
    return _summary(plan, results, small, failed, published)


def mean_over(figures: Sequence[Figures]) -> Figures:
    """Means of figures by method, over seeds or sets that have them.

    The recall that a routing keeps is the ratio of mean recalls: where the cloud finds next to nothing, a ratio of
    single sets says nothing.
    """
    methods = list(dict.fromkeys(method for each in figures for method in each))
    means: Figures = {}
    for method in methods:
        of = [each[method] for each in figures if method in each]
        keys = list(dict.fromkeys(key for each in of for key in each))
        means[method] = {key: float(np.mean([each[key] for each in of if key in each])) for key in keys}
    alone = means.get("cloud_only", {})
    for routing in means.values():
        for key in [key for key in routing if key.startswith("recall_kept")]:
            recall = key.replace("recall_kept", "recall")
            if alone.get(recall):
                routing[key] = routing[recall] / alone[recall]
    return means


def failures(results: Sequence[Result]) -> dict[str, str]:
    """The first error of each set that has one; a failure of the variant beside the protocol is named as such."""
    failed: dict[str, str] = {}
    for result in results:
        if result.error and result.unit.variant == PUBLISHED:
            reason = without_path(result.error, result.unit.path)
            failed.setdefault(result.unit.set_name, f"seed {result.unit.seed}: {reason}")
    return failed


def without_path(text: str, path: Path) -> str:
    """A message in one line that names a file without its folders, which are this machine's business."""
    return re.sub(r"\s+", " ", text.replace(str(path), path.name))


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds 0 to N - 1 of a number N, or those of a list: `5`, `0,3,7`, `4,`. Raises SettingsError for others."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0 or max(numbers) >= 2**32 or (numbers == [0] and "," not in text):
        raise SettingsError(f"--seeds {text}: give how many (5), or which (0,3,7).")
    return tuple(dict.fromkeys(numbers)) if "," in text else tuple(range(numbers[0]))


def _small_sets(benchmark: str, sets: Sequence[DataSet]) -> tuple[set[str], dict[str, str]]:
    """Names of the sets that the protocol bootstraps, and the error of each set that cannot be read."""
    small: set[str] = set()
    broken: dict[str, str] = {}
    for item in sets if benchmark == "adbench" else ():
        try:
            if is_small(item.path):
                small.add(item.name)
        except DataError as error:
            broken[item.name] = without_path(str(error), item.path)
    return small, broken


def _units(plan: BenchmarkOptions, sets: Sequence[DataSet], small: set[str]) -> list[Unit]:
    """Every set and seed; small sets also as they are. One seed of every set comes first."""
    settings = plan.settings.model_dump(mode="json")
    return [
        Unit(plan.benchmark, item.name, item.path, variant, seed, settings)
        for seed in plan.seeds
        for item in sets
        for variant in ((PUBLISHED, AS_THEY_ARE) if item.name in small else (PUBLISHED,))
    ]


def _summary(
    plan: BenchmarkOptions,
    results: Sequence[Result],
    small: set[str],
    failed: Mapping[str, str],
    published: Published | None,
) -> dict[str, Any]:
    sets = _by_set(results, PUBLISHED, failed)
    as_they_are = _by_set(results, AS_THEY_ARE, {})
    summary: dict[str, Any] = {
        "sets": sets,
        "mean": mean_over(list(sets.values())),
        "benchmark": plan.benchmark,
        "command": plan.command,
        "version": version("vedette"),
        "seeds": list(plan.seeds),
        "headline": HEADLINE[plan.benchmark],
        "failed": dict(failed),
        "facts": _facts(results),
        "settings": plan.settings.model_dump(mode="json"),
        "published": None if published is None else asdict(published),
    }
    if plan.benchmark == "adbench":
        large = {name: figures for name, figures in sets.items() if name not in small}
        summary[LARGE_SETS] = {"names": list(large), "mean": mean_over(list(large.values()))}
        honest = {**large, **as_they_are}
        not_so = {
            result.unit.set_name: without_path(result.error, result.unit.path)
            for result in results
            if result.error and result.unit.variant == AS_THEY_ARE
        }
        summary["without_bootstrap"] = {"sets": honest, "mean": mean_over(list(honest.values())), "failed": not_so}
    return summary


def _by_set(results: Sequence[Result], variant: str, failed: Mapping[str, str]) -> dict[str, Figures]:
    """Means over the seeds, by set."""
    found: dict[str, list[Figures]] = {}
    for result in results:
        if result.unit.variant == variant and not result.error and result.unit.set_name not in failed:
            found.setdefault(result.unit.set_name, []).append(result.figures)
    return {name: mean_over(figures) for name, figures in sorted(found.items(), key=lambda item: item[0].lower())}


def _facts(results: Sequence[Result]) -> dict[str, Any]:
    """Facts of each set's first seed, under the protocol."""
    facts: dict[str, Any] = {}
    for result in results:
        if result.unit.variant == PUBLISHED and not result.error:
            facts.setdefault(result.unit.set_name, result.facts)
    return facts
