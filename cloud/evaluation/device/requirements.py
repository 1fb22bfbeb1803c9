"""Requirements of the agent, and their comparison with the measurements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.modality import Modality

COMPARED = "int8_openvino"  # artefact of the engine that benchmark_app measures
VECTORS_AND_IMAGES = (Modality.SERIES, Modality.IMAGE)


@dataclass(frozen=True, slots=True)
class Limit:
    """Limit of one figure.

    `path`: keys of the figure in the figures of a kind of samples; `*` stands for every key. `is_floor`: `required` is
    a minimum, not a maximum.
    """

    name: str
    modalities: tuple[Modality, ...]
    path: tuple[str, ...]
    required: float
    unit: str
    is_floor: bool


LIMITS = (
    Limit(
        "end-to-end throughput, of the bare engine's",
        VECTORS_AND_IMAGES,
        ("throughput", COMPARED, "ratio"),
        0.9,
        "",
        True,
    ),
    Limit(
        "the same, at the bare engine's best batch size",
        VECTORS_AND_IMAGES,
        ("throughput", COMPARED, "ratio_to_best"),
        0.9,
        "",
        True,
    ),
    Limit("INT8 throughput, of FP32 PyTorch's", (Modality.IMAGE,), ("int8", "ratio"), 2.5, "", True),
    Limit("INT8 throughput at batch 1, of FP32 PyTorch's", (Modality.SERIES,), ("int8", "ratio"), 5.0, "", True),
    Limit("images a second, of PaDiM's on OpenVINO", (Modality.IMAGE,), ("peer", "ratio"), 3.0, "", True),
    Limit("peak resident memory", (Modality.IMAGE,), ("footprint", "*", "peak_resident_mib"), 200.0, "MiB", False),
    Limit("start to first screening", VECTORS_AND_IMAGES, ("footprint", "*", "start_s"), 2.0, "s", False),
    Limit(
        "CPU of router and spool, a screened sample",
        VECTORS_AND_IMAGES,
        ("routing", "cpu_us_per_sample"),
        100.0,
        "µs",
        False,
    ),
)
NOT_MEASURED = "not measured: give --peer-python"


def requirements(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per limit and kind of samples.

    `figures`: measurements by kind, see `Workload.kind`. A row has the keys `what`, `required`, `unit`, `measured` and
    `met`; the last two are None if the figure was not measured.
    """
    rows = []
    for limit in LIMITS:
        for kind, of_kind in figures.items():
            if kind.partition(" ")[0] not in limit.modalities:
                continue
            for name, measured in _found(of_kind, limit.path):
                met = None
                if measured is not None:
                    met = measured >= limit.required if limit.is_floor else measured <= limit.required
                rows.append(
                    {
                        "samples": kind,
                        "what": f"{limit.name}, {name}" if name else limit.name,
                        "at": "least" if limit.is_floor else "most",
                        "required": limit.required,
                        "unit": limit.unit,
                        "measured": measured,
                        "met": met,
                        "note": NOT_MEASURED if measured is None else "",
                    }
                )
    return rows


def _found(figures: Any, path: Sequence[str]) -> list[tuple[str, float | None]]:
    """Return (key that replaced `*`, value) pairs; the value is None if the figure was not measured."""
    if figures is None:
        return [("", None)]
    if not path:
        return [("", float(figures))]
    if path[0] == "*":
        parts = {name: part for name, part in figures.items() if isinstance(part, Mapping)}
        return [(name, value) for name, part in parts.items() for _, value in _found(part, path[1:])]
    return _found(figures[path[0]], path[1:])
