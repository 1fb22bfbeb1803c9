"""Run of the drift benchmark: every stream, every method, with and without adaptation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from cloud.evaluation.bench import one_line_without_folders
from cloud.evaluation.drift.replay import (
    LABELS,
    NOBODY,
    PROMISE,
    VERDICTS,
    adapted_p_values,
    creeping_fault,
    detection,
)
from cloud.evaluation.drift.stream_scores import EDGE, StreamScores, scores_of
from cloud.evaluation.drift.streams import find_streams
from cloud.serving.analysis import FUSED
from cloud.training.settings import TrainingSettings
from shared.adaptive_calibration import AdaptationLimits
from shared.errors import DataError, VedetteError

OFF, UNANSWERED, ANSWERED, CASCADE = "off", "unanswered", "answered", "cascade"
SEEN, UNSEEN = "seen", "unseen"  # whether the streams were looked at while the method was developed
SEEN_FAMILY = "adbench"
MIN_NORMALS = 300  # of a stream, for a rate of 1 % to be measurable

DEFAULT_LIMITS = AdaptationLimits()

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class DriftBenchmarkOptions:
    """Options of a run.

    `work`: folder of the scores of finished streams. `command`: repeats the run. `quick`: baselines only, no training.
    """

    data: Path
    families: tuple[str, ...]
    work: Path
    settings: TrainingSettings
    command: str
    quick: bool = False
    limits: AdaptationLimits = DEFAULT_LIMITS


def run_drift_benchmark(options: DriftBenchmarkOptions, progress: Progress | None = None) -> dict[str, Any]:
    """Return the figures of every stream and their means as JSON values; raises DataError if no stream is usable."""
    streams: dict[str, Any] = {}
    failed: dict[str, str] = {}
    sources = list(find_streams(options.data, options.families))
    if not sources:
        raise DataError(f"{options.data}: no streams here; give a folder with adbench, smd or tep in it.")
    for place, source in enumerate(sources):
        if progress is not None:
            progress(source.key, place / len(sources))
        try:
            scored = scores_of(source, options.settings, options.work, quick=options.quick)
        except VedetteError as error:
            failed[source.key] = one_line_without_folders(str(error), source.path)
            continue
        part = SEEN if source.family == SEEN_FAMILY else UNSEEN
        streams[source.key] = {"part": part, **facts(scored), "methods": stream_figures(scored, options.limits)}
    if not streams:
        name, reason = next(iter(failed.items()))
        raise DataError(f"Every stream failed; {name}: {reason}")
    return {
        "streams": streams,
        "means": {part: means([item for item in streams.values() if item["part"] == part]) for part in (SEEN, UNSEEN)},
        "failed": failed,
        "promise": PROMISE,
        "command": options.command,
        "version": version("vedette"),
    }


def facts(scored: StreamScores) -> dict[str, int]:
    """Return the numbers of samples and anomalies of a stream."""
    return {"samples": len(scored.labels), "anomalies": int(scored.labels.sum())}


def stream_figures(scored: StreamScores, limits: AdaptationLimits) -> dict[str, dict[str, Any]]:
    """Return the figures of one stream by method and by way of calibration."""
    figures: dict[str, dict[str, Any]] = {}
    judged_normal = ~scored.labels
    for method in sorted(scored.scores, key=lambda name: name != FUSED):  # its verdicts answer those of the device
        surprise, size, normal = scored.surprise(method), len(scored.held_out[method]), ~scored.labels
        ways = {OFF: np.exp(-surprise)}
        ways[UNANSWERED] = adapted_p_values(surprise, normal, size, NOBODY, limits)
        ways[ANSWERED] = adapted_p_values(surprise, normal, size, LABELS, limits)
        if method == FUSED:
            judged_normal = ways[ANSWERED] > PROMISE
        if method == EDGE:
            ways[CASCADE] = adapted_p_values(surprise, judged_normal, size, VERDICTS, limits)
        found = {name: detection(p_values, surprise, scored.labels) for name, p_values in ways.items()}
        for name, answers in ((UNANSWERED, NOBODY), (ANSWERED, LABELS)):
            found[name]["creeping_fault"] = creeping_fault(surprise[normal], size, answers, limits)
        figures[method] = found
    return figures


def means(streams: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean and worst figures by method and way.

    `measurable` and `worst_measurable` are of streams with MIN_NORMALS normals, and None without such a stream.
    """
    result: dict[str, Any] = {}
    for method in dict.fromkeys(name for item in streams for name in item["methods"]):
        for way in streams[0]["methods"][method]:
            rows = [item["methods"][method][way] for item in streams]
            large = [item["samples"] - item["anomalies"] >= MIN_NORMALS for item in streams]
            rates = np.array([row["false_alarms"] for row in rows])
            lost = [row["recall_lost"] for row in rows if "recall_lost" in row]
            crept = [row["creeping_fault"] for row in rows if "creeping_fault" in row]
            measurable = rates[np.array(large)]
            result.setdefault(method, {})[way] = {
                "streams": len(rows),
                "false_alarms": float(rates.mean()),
                "worst": float(rates.max()),
                "measurable": float(measurable.mean()) if any(large) else None,
                "worst_measurable": float(measurable.max()) if any(large) else None,
                "recall_lost": float(np.mean(lost)) if lost else None,
                "creeping_fault": float(np.min(crept)) if crept else None,
            }
    return result
