"""What is required of the agent, beside what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.modality import Modality

COMPARED = "int8_openvino"  # the artefact of the engine whose own tool is the limit
VECTORS_AND_IMAGES = (Modality.SERIES, Modality.IMAGE)


@dataclass(frozen=True, slots=True)
class Limit:
    """`path`: where the figure stands in those of a kind of samples; `*`: of each there.

    `is_floor`: at least, not at most.
    """

    what: str
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
    """A row for each limit and kind of samples, of `figures` by kind (see `Workload.kind`): `what`, `required`, `unit`,
    `measured`, `met`; None without a peer."""
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
                        "what": f"{limit.what}, {name}" if name else limit.what,
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
    """Names (of what `*` stands for) and values; None where a part was not measured."""
    if figures is None:
        return [("", None)]
    if not path:
        return [("", float(figures))]
    if path[0] == "*":
        parts = {name: part for name, part in figures.items() if isinstance(part, Mapping)}
        return [(name, value) for name, part in parts.items() for _, value in _found(part, path[1:])]
    return _found(figures[path[0]], path[1:])
