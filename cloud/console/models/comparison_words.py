"""Comparisons as their pages show them, with the places of their picture."""

import math
from collections.abc import Sequence
from typing import Any

from cloud.comparison.figures import ComparisonFigures, SideFigures, changed, figures_of
from cloud.comparison.words import (
    answer_words,
    asked_words,
    auroc_words,
    latency_words,
    progress_words,
    share_words,
)
from cloud.store.comparison_samples import ANOMALOUS, ComparedSample
from cloud.store.comparisons import UNFINISHED, Comparison, ComparisonStatus
from cloud.words import count_words
from shared.calibration import MIN_P_VALUE
from shared.samples import Decision

MAX_CHANGED = 50
TONES = {
    ComparisonStatus.WAITING: "paused",
    ComparisonStatus.RUNNING: "under-way",
    ComparisonStatus.COMPLETED: "good",
    ComparisonStatus.FAILED: "bad",
    ComparisonStatus.LOST: "bad",
    ComparisonStatus.CANCELLED: "over",
}
_LEAST_DECADES = 3


def comparison_on_page(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison and its progress as lists and its page show them."""
    asked = comparison.asked
    done = comparison.judged / comparison.samples if comparison.samples else 0.0
    return {
        "number": comparison.number,
        "bundle_name": comparison.bundle_name,
        "first": comparison.first_bundle_id,
        "second": comparison.second_bundle_id,
        "status": comparison.status.value,
        "tone": TONES[comparison.status],
        "is_unfinished": comparison.status in UNFINISHED,
        "reason": comparison.reason,
        "actor": comparison.actor,
        "created_at_s": comparison.created_at_s,
        "asked": asked_words(asked),
        "since_s": asked.since_s,
        "until_s": asked.until_s,
        "percent": 100 * done,
        "progress": progress_words(comparison),
        "rate": comparison.false_alarm_rate,
    }


def comparison_in_full(comparison: Comparison, found: Sequence[ComparedSample]) -> dict[str, Any]:
    """Return a comparison with its figures, its picture and the samples with another decision."""
    figures = figures_of(found, comparison.first_bundle_id, comparison.second_bundle_id)
    return comparison_on_page(comparison) | {
        "figures": figures,
        "agreement": share_words(figures.agreement),
        "sides": [_side(figures.first, figures, "first"), _side(figures.second, figures, "second")],
        "scatter": _scatter(found, comparison.false_alarm_rate) if found else None,
        "changed": [_changed(item) for item in changed(found, MAX_CHANGED)],
        "changed_total": figures.only_first + figures.only_second,
    }


def _side(side: SideFigures, figures: ComparisonFigures, place: str) -> dict[str, Any]:
    return {
        "place": place,
        "bundle_id": side.bundle_id,
        "anomalous": f"{count_words(side.anomalous)} of {count_words(figures.judged)}",
        "undecided": side.undecided,
        "auroc": auroc_words(side),
        "found": share_words(side.found),
        "false_alarms": share_words(side.false_alarms),
        "latency": latency_words(side),
    }


def _scatter(found: Sequence[ComparedSample], rate: float | None) -> dict[str, Any]:
    """Return the points of p-values against each other, in percent of a square; rare ones are right and up."""
    pairs = [
        (item, item.first.p_value, item.second.p_value)
        for item in found
        if item.first.p_value is not None and item.second.p_value is not None
    ]
    rarest = min((min(first, second) for _, first, second in pairs), default=1.0)
    decades = max(_LEAST_DECADES, math.ceil(-math.log10(max(rarest, MIN_P_VALUE)) - 1e-9))

    def place(p_value: float) -> float:
        return round(100 * min(1.0, -math.log10(max(min(p_value, 1.0), MIN_P_VALUE)) / decades), 2)

    return {
        "points": [
            {"x": place(first), "y": round(100 - place(second), 2), "kind": _kind(item)}
            for item, first, second in pairs
        ],
        "limit": place(rate) if rate else None,
        "decades": decades,
        "ticks": [round(100 * decade / decades, 2) for decade in range(1, decades)],
        "end": f"1 in 10{''.join('⁰¹²³⁴⁵⁶⁷⁸⁹'[int(digit)] for digit in str(decades))}",
        "left_out": len(found) - len(pairs),
    }


def _kind(item: ComparedSample) -> str:
    if item.label is not None:
        return "real" if item.label in ANOMALOUS else "normal"
    return "changed" if item.first.decision is not item.second.decision else "same"


def _changed(item: ComparedSample) -> dict[str, Any]:
    return {
        "sample_id": str(item.sample_id) if item.sample_id is not None else "",
        "device_id": item.device_id or "",
        "label": str(item.label).replace("_", " ") if item.label is not None else "",
        "first": answer_words(item.first.p_value),
        "first_decision": item.first.decision.value,
        "second": answer_words(item.second.p_value),
        "second_decision": item.second.decision.value,
        "is_undecided": Decision.UNDECIDED in (item.first.decision, item.second.decision),
    }
