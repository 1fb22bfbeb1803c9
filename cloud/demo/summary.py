"""Figures of the demo, by device and in total.

Scores are compared by their p-values, because a screener may be replaced while the demo runs.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from cloud.demo.streams import DevicePlan
from cloud.metrics import separation
from shared.bundle import InputSpec
from shared.samples import Decision, Route
from shared.status import AgentStatus

COUNTS = ("samples_screened", "samples_forwarded", "samples_audited", "bytes_screened", "bytes_uploaded")
OUTCOMES = (
    "verdicts",
    "samples_lost",
    "samples_undecided",
    "samples_rejected",
    "anomalies",
    "anomalies_caught",
    "normals",
    "false_alarms",
)


@dataclass(frozen=True)
class Screened:
    """Line of an agent's screening log."""

    origin: str
    p_value: float
    route: Route
    sample_id: UUID | None


def read_screening_log(path: Path) -> list[Screened]:
    """Return all samples that an agent screened, in order."""
    with path.open(newline="") as file:
        return [
            Screened(
                origin=line["origin"],
                p_value=float(line["p_value"]),
                route=Route(line["route"]),
                sample_id=UUID(line["sample_id"]) if line["sample_id"] else None,
            )
            for line in csv.DictReader(file)
        ]


def device_summary(
    plan: DevicePlan,
    status: AgentStatus,
    screened: Sequence[Screened],
    spec: InputSpec,
    decisions: Mapping[UUID, Decision | None],
    fused_scores: NDArray[np.float64],
) -> dict[str, Any]:
    """Return the figures of one device.

    `spec`: input of its bundle. `decisions`: decision on every stored sample, None while it has no verdict.
    `fused_scores`: (samples,) of all screened samples, from a pass of the analyzers.
    """
    counters = status.counters
    sent = [item.sample_id for item in screened if item.sample_id is not None]
    labels = [plan.stream.is_anomalous(item.origin, spec) for item in screened]
    flagged = [item.sample_id is not None and decisions.get(item.sample_id) is Decision.ANOMALOUS for item in screened]
    summary: dict[str, Any] = {
        "about": plan.about,
        "modality": str(plan.modality),
        "samples_screened": counters.samples_screened,
        "samples_forwarded": counters.samples_forwarded,
        "samples_audited": counters.samples_audited,
        "samples_rejected": counters.samples_rejected,
        "bytes_screened": counters.bytes_screened,
        "bytes_uploaded": counters.bytes_uploaded,
        "upload_ratio": _ratio(counters.bytes_uploaded, counters.bytes_screened),
        "verdicts": sum(decisions.get(id_) is not None for id_ in sent),
        "samples_lost": sum(id_ not in decisions for id_ in sent),
        "samples_undecided": sum(decisions.get(id_) is Decision.UNDECIDED for id_ in sent),
        "edge_auroc": _auroc(labels, -np.array([item.p_value for item in screened])),
        "fused_auroc": _auroc(labels, fused_scores),
        **_cascade(labels, flagged),
        "screen_latency_ms": status.latency_ms["screen"].model_dump(),
        "sample_to_verdict_ms": status.latency_ms["sample_to_verdict"].model_dump(),
        "bundle": next(iter(status.sources.values())).bundle_id,
    }
    return summary


def total_summary(devices: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of the fleet: sums of counts and bytes, mean AUROC of the devices that have one.

    Latencies are the median of p50 and the maximum of p99 over the devices.
    """
    each = list(devices.values())
    total: dict[str, Any] = {name: sum(device[name] for device in each) for name in COUNTS}
    total["upload_ratio"] = _ratio(total["bytes_uploaded"], total["bytes_screened"])
    for name in OUTCOMES:
        total[name] = sum(device[name] for device in each)
    for name in ("edge_auroc", "fused_auroc"):
        known = [device[name] for device in each if device[name] is not None]
        total[name] = float(np.mean(known)) if known else None
    total["cascade_recall"] = _ratio(total["anomalies_caught"], total["anomalies"])
    total["false_alarm_rate"] = _ratio(total["false_alarms"], total["normals"])
    for name in ("screen_latency_ms", "sample_to_verdict_ms"):
        medians = [device[name]["p50"] for device in each if device[name]["p50"] is not None]
        tails = [device[name]["p99"] for device in each if device[name]["p99"] is not None]
        total[name] = {
            "p50": float(np.median(medians)) if medians else None,
            "p99": max(tails) if tails else None,
        }
    return total


def _cascade(labels: Sequence[bool | None], flagged: Sequence[bool]) -> dict[str, Any]:
    """Return the figures of the cascade: a sample is flagged if it was sent and its verdict is anomalous."""
    anomalies = sum(label is True for label in labels)
    normals = sum(label is False for label in labels)
    caught = sum(label is True and flag for label, flag in zip(labels, flagged, strict=True))
    false_alarms = sum(label is False and flag for label, flag in zip(labels, flagged, strict=True))
    return {
        "anomalies": anomalies,
        "anomalies_caught": caught,
        "normals": normals,
        "false_alarms": false_alarms,
        "cascade_recall": _ratio(caught, anomalies),
        "false_alarm_rate": _ratio(false_alarms, normals),
    }


def _auroc(labels: Sequence[bool | None], scores: NDArray[np.float64]) -> float | None:
    """Return the AUROC of the labelled samples; None unless both classes are present."""
    known = np.array([label is not None for label in labels], dtype=bool)
    truth = np.array([label is True for label in labels], dtype=bool)[known]
    if not truth.any() or truth.all():
        return None
    return separation(scores[known][~truth], scores[known][truth])  # infinite scores rank above all others


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
