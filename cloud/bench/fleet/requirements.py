"""Requirements of the service with many devices, and their comparison with the measurements."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

HONEST, WITH_HOSTILE = "honest", "with hostile devices"
Figures = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Requirement:
    """Largest allowed value of a figure; `measure` returns None where it was not measured."""

    phase: str
    name: str
    required: float
    unit: str
    measure: Callable[[Figures], float | None]


def _ratio(kind: str) -> Callable[[Figures], float | None]:
    def measure(figures: Figures) -> float | None:
        alone, beside = figures[HONEST][kind]["p99"], figures[WITH_HOSTILE][kind]["p99"]
        return beside / alone if alone and beside else None

    return measure


def _growth(phase: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures[phase]["resident_end_mib"] / figures[phase]["resident_start_mib"]


REQUIREMENTS = (
    Requirement(HONEST, "acknowledged samples without a verdict", 0, "", lambda all_: all_[HONEST]["lost"]),
    Requirement(HONEST, "samples not acknowledged", 0, "", lambda all_: all_[HONEST]["not_acknowledged"]),
    Requirement(HONEST, "p99 to the acknowledgement", 250, "ms", lambda all_: all_[HONEST]["acknowledged_ms"]["p99"]),
    Requirement(HONEST, "p99 to the verdict", 2000, "ms", lambda all_: all_[HONEST]["verdict_ms"]["p99"]),
    Requirement(HONEST, "memory at the end, relative to the start", 1.1, "", _growth(HONEST)),
    Requirement(
        WITH_HOSTILE,
        "acknowledged samples without a verdict",
        0,
        "",
        lambda all_: all_[WITH_HOSTILE]["lost"],
    ),
    Requirement(WITH_HOSTILE, "samples not acknowledged", 0, "", lambda all_: all_[WITH_HOSTILE]["not_acknowledged"]),
    Requirement(WITH_HOSTILE, "p99 to the acknowledgement, relative to honest alone", 2, "", _ratio("acknowledged_ms")),
    Requirement(WITH_HOSTILE, "p99 to the verdict, relative to honest alone", 2, "", _ratio("verdict_ms")),
    Requirement(WITH_HOSTILE, "memory at the end, relative to the start", 1.1, "", _growth(WITH_HOSTILE)),
)


def requirements(figures: Figures) -> list[dict[str, Any]]:
    """Return one row per requirement of the phases that ran: `phase`, `what`, `required`, `unit`, `measured`, `met`."""
    rows = []
    for item in REQUIREMENTS:
        if item.phase not in figures:
            continue
        measured = item.measure(figures)
        rows.append(
            {
                "phase": item.phase,
                "what": item.name,
                "required": item.required,
                "unit": item.unit,
                "measured": measured,
                "met": measured is not None and measured <= item.required,
            }
        )
    return rows
