"""Report on a bundle in words, and the places of its pictures."""

import math
from typing import Any

from cloud.bundle_report.figures import ArtefactReport, BundleReport, GroupRuns, MethodReport, Resolution
from cloud.words import NO_FIGURE, SPACE, bytes_words, count_words, duration_words, p_value_words

KIND_WORDS = {
    "fused": "fused verdict",
    "member": "member of the fusion",
    "baseline": "baseline, beside the fusion",
    "screener": "screener on devices",
}
_DECADES = 7  # of the ruler of p-values: from 1 to 1 in 10 million


def report_on_page(report: BundleReport) -> dict[str, Any]:
    """Return a report as its page shows it."""
    return report.model_dump() | {
        "trained": trained_words(report),
        "size": bytes_words(report.archive_bytes),
        "edge_size": bytes_words(report.edge_archive_bytes),
        "leaderboard": [_opinion(item) for item in report.opinions],
        "has_auroc": any(item.auroc is not None for item in report.opinions),
        "synthetic": [
            {
                "kind": item.kind,
                "copies": item.copies,
                "screener": item.screener,
                "fused": item.fused,
                "screener_share": 100 * item.screener / item.copies if item.copies else 0.0,
                "fused_share": 100 * item.fused / item.copies if item.copies else 0.0,
            }
            for item in report.synthetic
        ],
        "artefacts": [_artefact(item) for item in report.artefacts],
        "ruler": _ruler(report.resolution) if report.resolution is not None else None,
        "running": _runs(report.runs),
        "running_total": sum(item.devices for item in report.runs),
    }


def trained_words(report: BundleReport) -> str:
    """Return how a bundle was made, in one sentence."""
    if report.recalibration is not None:
        alarms = count_words(report.recalibration.false_alarms)
        return (
            f"Its calibration was made again from {report.parent_bundle_id}, with {alarms} labelled false alarms; its "
            "networks are the same."
        )
    if report.parent_bundle_id and report.training_seconds is None:
        return f"A federated round made it from {report.parent_bundle_id}."
    if report.train_samples is None:
        return "The manifest does not say what it was trained on."
    took = f" in {duration_words(report.training_seconds)}" if report.training_seconds is not None else ""
    labelled = f"{count_words(report.labelled_samples)} with labels" if report.labelled_samples else "none with a label"
    origin = f" of {report.trained_on}" if report.trained_on else ""
    held_out = count_words(report.held_out_samples) if report.held_out_samples is not None else "an unknown number"
    again = f" It is a retraining of {report.parent_bundle_id}." if report.parent_bundle_id else ""
    return (
        f"Trained on {count_words(report.train_samples)} normal samples{origin}{took}; {held_out} held out to "
        f"calibrate, {labelled}.{again}"
    )


def _opinion(item: MethodReport) -> dict[str, Any]:
    return {
        "name": item.name,
        "kind": item.kind,
        "words": KIND_WORDS[item.kind],
        "auroc": f"{item.auroc:.3f}" if item.auroc is not None else NO_FIGURE,
        "above_chance": 200 * max(item.auroc - 0.5, 0.0) if item.auroc is not None else None,
        "weight": f"{100 * item.weight:.0f}{SPACE}%" if item.weight is not None else "",
        "share": item.weight,
        "below": item.below,
    }


def _artefact(item: ArtefactReport) -> dict[str, Any]:
    layers = NO_FIGURE
    if item.layers_in_float is not None:
        layers = f"{item.layers_in_float}" + (f" of {item.layers}" if item.layers is not None else "")
    resolves = NO_FIGURE
    if item.held_out is not None and item.rarest_p_value is not None:
        by_mode = f", the rarest of {item.modes} modes" if item.modes else ""
        resolves = f"1{SPACE}in{SPACE}{count_words(item.held_out + 1)}{by_mode}"
    return {
        "name": item.name,
        "engine": item.engine,
        "precision": item.precision.upper(),
        "is_preferred": item.is_preferred,
        "size": bytes_words(item.graph_bytes),
        "rank": _figure(item.rank_correlation),
        "labels": _figure(item.label_agreement),
        "layers": layers,
        "resolves": resolves,
        "tail": "" if item.has_tail is None else "rarer ones extrapolated" if item.has_tail else "none rarer",
    }


def _ruler(resolution: Resolution) -> dict[str, Any]:
    """Return the places in percent of a ruler from 1 to 1 in 10 million, and its figures in words."""
    asked = resolution.asked_alarms_per_day / resolution.samples_per_day
    return {
        "rarest": _place(resolution.rarest_p_value),
        "asked": _place(asked) if asked > 0 else None,
        "rarest_words": f"1{SPACE}in{SPACE}{count_words(resolution.separate + 1)}",
        "asked_words": p_value_words(min(asked, 1.0), False) if asked > 0 else "",
        "asked_alarms": f"{resolution.asked_alarms_per_day:.3g}",
        "alarms": f"{resolution.alarms_per_day:.3g}",
        "rate": f"{resolution.samples_per_day:,.6g}",
        "is_assumed": resolution.rate_is_assumed,
        "is_resolved": resolution.is_resolved,
        "separate": count_words(resolution.separate),
        "held_out": count_words(resolution.held_out),
        "ticks": [
            {"x": 100 * decade / _DECADES, "words": "1" if not decade else f"1 in 10{_power(decade)}"}
            for decade in range(0, _DECADES + 1, 1)
        ],
    }


def _place(p_value: float) -> float:
    return min(100.0, max(0.0, 100 * -math.log10(max(p_value, 1e-12)) / _DECADES))


def _power(decade: int) -> str:
    return "" if decade == 1 else "⁰¹²³⁴⁵⁶⁷⁸⁹"[decade]


def _runs(runs: tuple[GroupRuns, ...]) -> list[dict[str, Any]]:
    most = max((item.devices for item in runs), default=1)
    return [item.model_dump() | {"share": item.devices / most} for item in runs]


def _figure(value: float | None) -> str:
    return NO_FIGURE if value is None else f"{value:.4f}"
