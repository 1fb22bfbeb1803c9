"""Requirements of the agent, and their comparison with the measurements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.modality import Modality

COMPARED_ARTEFACT = "int8_openvino"  # artefact of the engine that benchmark_app measures
MODALITIES = (Modality.TABULAR, Modality.SERIES, Modality.IMAGE)  # of screeners that can be measured
VECTORS_AND_IMAGES = (Modality.SERIES, Modality.IMAGE)


@dataclass(frozen=True, slots=True)
class FigureLimit:
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
    FigureLimit(
        "end-to-end throughput, relative to the bare engine",
        VECTORS_AND_IMAGES,
        ("throughput", COMPARED_ARTEFACT, "ratio"),
        0.9,
        "",
        True,
    ),
    FigureLimit(
        "end-to-end throughput, relative to the bare engine at its best batch size",
        VECTORS_AND_IMAGES,
        ("throughput", COMPARED_ARTEFACT, "ratio_to_best"),
        0.9,
        "",
        True,
    ),
    FigureLimit("INT8 throughput, relative to FP32 PyTorch", (Modality.IMAGE,), ("int8", "ratio"), 2.5, "", True),
    FigureLimit(
        "INT8 throughput at batch size 1, relative to FP32 PyTorch",
        (Modality.SERIES,),
        ("int8", "ratio"),
        5.0,
        "",
        True,
    ),
    FigureLimit(
        "images per second, relative to PaDiM on OpenVINO", (Modality.IMAGE,), ("peer", "ratio"), 3.0, "", True
    ),
    FigureLimit(
        "peak resident memory", (Modality.IMAGE,), ("footprint", "*", "peak_resident_mib"), 200.0, "MiB", False
    ),
    FigureLimit("start to first screening", VECTORS_AND_IMAGES, ("footprint", "*", "start_s"), 2.0, "s", False),
    FigureLimit(
        "CPU time of router and spool per screened sample",
        VECTORS_AND_IMAGES,
        ("routing", "cpu_us_per_sample"),
        100.0,
        "µs",
        False,
    ),
)
NOT_MEASURED_NOTE = "not measured: give --peer-python"


def requirements(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per limit and kind of samples.

    `figures`: measurements by kind, see `Workload.kind`. A row has the keys `what`, `required`, `unit`, `measured` and
    `met`; the last two are None if the figure was not measured.
    """
    rows = []
    for limit in LIMITS:
        for kind, kind_figures in figures.items():
            if kind.partition(" ")[0] not in limit.modalities:
                continue
            for name, measured in _values_at(kind_figures, limit.path):
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
                        "note": NOT_MEASURED_NOTE if measured is None else "",
                    }
                )
    return rows


def _values_at(figures: Any, path: Sequence[str]) -> list[tuple[str, float | None]]:
    """Return (key that replaced `*`, value) pairs; the value is None if the figure was not measured."""
    if figures is None:
        return [("", None)]
    if not path:
        return [("", float(figures))]
    if path[0] == "*":
        parts = {name: part for name, part in figures.items() if isinstance(part, Mapping)}
        return [(name, value) for name, part in parts.items() for _, value in _values_at(part, path[1:])]
    return _values_at(figures[path[0]], path[1:])
