"""Comparisons as JSON values, for the HTTP API and the command line."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel

from cloud.comparison.figures import ComparisonFigures, changed, figures_of
from cloud.moments import with_rfc3339
from cloud.store.comparison_samples import ComparedSample
from cloud.store.comparisons import Comparison, SampleChoice

MAX_CHANGED = 50


class AskedItem(BaseModel):
    """Samples that were asked for."""

    choice: SampleChoice
    size: int
    since: str | None
    until: str | None


class ComparisonItem(BaseModel):
    """One comparison and its progress.

    `samples` is null until they are chosen, `remaining_s` while the speed is unknown. `waits_for_live`: samples of
    devices are judged first.
    """

    number: int
    bundle_name: str
    first_bundle_id: str
    second_bundle_id: str
    asked: AskedItem
    actor: str
    created_at: str
    status: str
    reason: str
    started_at: str | None
    ended_at: str | None
    samples: int | None
    judged: int
    remaining_s: float | None
    waits_for_live: bool
    false_alarm_rate: float | None


class ChangedItem(BaseModel):
    """A sample with another decision; `sample_id` is null once it has expired."""

    sample_id: str | None
    label: str | None
    first_p_value: float | None
    first_decision: str
    second_p_value: float | None
    second_decision: str


class ComparisonDetail(ComparisonItem):
    """One comparison with the figures so far, and at most 50 samples with another decision."""

    figures: ComparisonFigures
    changed: list[ChangedItem]


def comparison_item(comparison: Comparison) -> dict[str, Any]:
    """Return the values of a ComparisonItem."""
    values = asdict(comparison) | {"remaining_s": comparison.remaining_s}
    asked = values.pop("asked")
    values["asked"] = asked | {"since_at_s": asked["since_s"], "until_at_s": asked["until_s"]}
    item: dict[str, Any] = with_rfc3339(values)
    item["asked"] |= {"since": item["asked"]["since_at"], "until": item["asked"]["until_at"]}
    return item


def comparison_detail(comparison: Comparison, judged: Sequence[ComparedSample]) -> dict[str, Any]:
    """Return the values of a ComparisonDetail; the figures are a model."""
    figures = figures_of(judged, comparison.first_bundle_id, comparison.second_bundle_id)
    differing = [_changed(item) for item in changed(judged, MAX_CHANGED)]
    return comparison_item(comparison) | {"figures": figures, "changed": differing}


def _changed(item: ComparedSample) -> dict[str, Any]:
    return {
        "sample_id": str(item.sample_id) if item.sample_id is not None else None,
        "label": item.label,
        "first_p_value": item.first.p_value,
        "first_decision": item.first.decision,
        "second_p_value": item.second.p_value,
        "second_decision": item.second.decision,
    }
