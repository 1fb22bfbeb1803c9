"""Words and figures of a training job for its pages."""

from collections.abc import Mapping
from typing import Any

from cloud.store.training_jobs import JobState, TrainingJob
from cloud.words import duration_words

_TONES = {JobState.RUNNING: "under-way", JobState.DONE: "good", JobState.FAILED: "bad", JobState.CANCELLED: "none"}
_FIGURES = ("vus_pr", "frame_auroc", "auroc", "auprc", "recall_at_1_far", "recall_at_5_far", "false_alarms_at_5")
_TITLES = {
    "vus_pr": "VUS-PR",
    "frame_auroc": "Frame AUROC",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "recall_at_1_far": "Found at 1 %",
    "recall_at_5_far": "Found at 5 %",
    "false_alarms_at_5": "False alarms at p ≤ 0.05",
    "upload_share": "Uploaded",
    "recall_kept_at_5_far": "Kept of the cloud's",
}
_ROUTING = ("upload_share", "vus_pr", "auroc", "recall_at_5_far", "recall_kept_at_5_far")


def job_view(job: TrainingJob, now_s: float) -> dict[str, Any]:
    """Return what the pages show of a job."""
    result = job.result
    return {
        "job": job,
        "name": job.options.get("name", ""),
        "tone": _TONES.get(job.state, "none"),
        "data": data_words(job.data),
        "left": f"about {duration_words(job.remaining_s)} left" if job.remaining_s and job.remaining_s >= 1 else "",
        "took": duration_words((job.ended_at_s or now_s) - job.started_at_s) if job.started_at_s else "",
        "judgement": _judgement(result),
        "methods": _table(result, "methods", _FIGURES),
        "leaderboard": _table(result, "leaderboard", _ROUTING),
        "evaluation": (result or {}).get("evaluation"),
    }


def data_words(data: Mapping[str, Any]) -> str:
    """Return where the samples of a job come from."""
    stored = data.get("stored")
    if not stored:
        return "uploaded files"
    whose = f"device {stored['device_id']}" if stored.get("device_id") else f"group {stored['group']}"
    return f"samples of {whose}, bundle {stored['bundle_name']}, last {stored['days']:g} days"


def _judgement(result: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return result["training"].get("judgement", {}) if result is not None else {}


def _table(result: Mapping[str, Any] | None, part: str, figures: tuple[str, ...]) -> dict[str, Any] | None:
    """Return heading and rows of a table of an evaluation, best first; None where it has no row."""
    evaluation = result.get("evaluation") if result is not None else None
    rows = evaluation.get(part, {}) if evaluation else {}
    shown = [name for name in figures if any(name in values for values in rows.values())]
    if not rows or not shown:
        return None
    leading = "auroc" if "auroc" in shown else shown[0]
    order = sorted(rows, key=lambda name: -rows[name].get(leading, 0.0)) if part == "methods" else list(rows)
    return {
        "header": [_TITLES[name] for name in shown],
        "rows": [(name.replace("_", " "), [_percent(rows[name].get(figure)) for figure in shown]) for name in order],
    }


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
