"""Comparisons in words, and the places of their picture."""

import math
from collections.abc import Sequence
from typing import Any

from cloud.comparison.figures import ComparisonFigures, ShareFigures, SideFigures, changed, figures_of
from cloud.store.comparison_samples import ANOMALOUS, ComparedSample
from cloud.store.comparisons import UNFINISHED, Comparison, ComparisonStatus, SampleChoice
from cloud.words import NO_FIGURE, SPACE, count_words, duration_words, p_value_words
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
    kind = "labelled samples" if asked.choice is SampleChoice.LABELLED else "newest stored samples"
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
        "asked": f"at most {count_words(asked.size)} {kind}",
        "since_s": asked.since_s,
        "until_s": asked.until_s,
        "percent": 100 * done,
        "progress": _progress(comparison),
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


def share_words(figures: ShareFigures) -> str:
    """Return a share with its count and interval: "92 % (46 of 50; 81 to 97 %)"."""
    if figures.value is None or figures.low is None or figures.high is None:
        return NO_FIGURE
    low, high = 100 * figures.low, 100 * figures.high
    return f"{100 * figures.value:.0f}{SPACE}% ({figures.hits} of {figures.count}; {low:.0f} to {high:.0f}{SPACE}%)"


def _progress(comparison: Comparison) -> str:
    if comparison.status is ComparisonStatus.WAITING:
        return "waits for its turn"
    if comparison.samples is None:
        return "chooses samples" if comparison.status is ComparisonStatus.RUNNING else ""
    text = f"{count_words(comparison.judged)} of {count_words(comparison.samples)} samples"
    if comparison.status is not ComparisonStatus.RUNNING:
        return text
    if comparison.waits_for_live:
        return f"{text}; it waits while samples of devices are judged"
    remaining_s = comparison.remaining_s
    return f"{text}, about {duration_words(remaining_s)} left" if remaining_s is not None else f"{text}; it loads"


def _side(side: SideFigures, figures: ComparisonFigures, place: str) -> dict[str, Any]:
    auroc = NO_FIGURE
    if side.auroc is not None and side.auroc_low is not None and side.auroc_high is not None:
        auroc = f"{side.auroc:.3f} ({side.auroc_low:.3f} to {side.auroc_high:.3f})"
    return {
        "place": place,
        "bundle_id": side.bundle_id,
        "anomalous": f"{count_words(side.anomalous)} of {count_words(figures.judged)}",
        "undecided": side.undecided,
        "auroc": auroc,
        "found": share_words(side.found),
        "false_alarms": share_words(side.false_alarms),
        "latency": (
            f"{_ms(side.latency_median_ms)}, 95 in 100 within {_ms(side.latency_p95_ms)}"
            if side.latency_median_ms is not None
            else NO_FIGURE
        ),
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
        "first": _answer_words(item.first.p_value),
        "first_decision": item.first.decision.value,
        "second": _answer_words(item.second.p_value),
        "second_decision": item.second.decision.value,
        "is_undecided": Decision.UNDECIDED in (item.first.decision, item.second.decision),
    }


def _answer_words(p_value: float | None) -> str:
    return NO_FIGURE if p_value is None else p_value_words(p_value, False)


def _ms(milliseconds: float | None) -> str:
    return NO_FIGURE if milliseconds is None else duration_words(milliseconds / 1000)
