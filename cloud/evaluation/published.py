"""Published results for comparison, read from a folder `reference` next to the data sets."""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ADBENCH_FILE = "dte_adbench_semi_supervised_auroc.csv"
SERIES_FILE = "tsbad_multivariate_vus_pr.csv"
BEST = "best of all, per set"
_AUPRC_MEANS = {"DTE-NP": 0.671, "KNN": 0.661, "DTE-C": 0.610}  # over exactly the sets below
_AUPRC_SETS = frozenset(
    {
        *("aloi", "annthyroid", "breastw", "campaign", "cardio", "cover", "donors", "fault", "glass", "hepatitis"),
        *("internetads", "landsat", "letter", "lymphography", "mnist", "musk", "pageblocks", "pima", "satellite"),
        *("skin", "smtp", "spambase", "thyroid", "vertebral", "waveform", "wbc", "wdbc", "wine", "wpbc", "yeast"),
    }
)
_ADBENCH_SOURCE = 'Livernoche et al., "On Diffusion Modeling for Anomaly Detection", ICLR 2024'
_SERIES_SOURCE = (
    'Liu & Paparrizos, "The Elephant in the Room: Towards A Reliable Time-Series Anomaly Detection Benchmark" '
    "(TSB-AD), NeurIPS 2024"
)
_NOT_METHODS = frozenset({"ts_len", "anomaly_len", "num_anomaly", "avg_anomaly_len", "anomaly_ratio"})


@dataclass(frozen=True, slots=True)
class PublishedFigures:
    """Published results: figures in [0, 1] by set and method, their means over the sets, and their source.

    `sets` uses our set names; sets without published figures are absent. `note` explains limits of the comparison.
    `mean_auprc`: means of AUPRC by method, if they are published for exactly these sets.
    """

    source: str
    figure: str
    sets: Mapping[str, Mapping[str, float]]
    mean: Mapping[str, float]
    note: str = ""
    mean_auprc: Mapping[str, float] = field(default_factory=dict)


def published_figures(benchmark: str, data: Path, set_names: Sequence[str]) -> PublishedFigures | None:
    """Return the published figures of these sets, or None if the reference tables have none of them."""
    folder = _reference_folder(data)
    if folder is None:
        return None
    if benchmark == "adbench":
        return _adbench(folder / ADBENCH_FILE, set_names)
    if benchmark == "series" and any(name.startswith("machine-") for name in set_names):
        return _series(folder / SERIES_FILE)
    return None


def _adbench(path: Path, set_names: Sequence[str]) -> PublishedFigures | None:
    rows = {_key(row["dataset"]): row for row in _rows(path) if row.get("dataset")}
    sets: dict[str, dict[str, float]] = {}
    for name in set_names:
        row = rows.get(_key(name))
        if row is not None:
            numbers = {method: _number(text) for method, text in row.items() if method != "dataset"}
            figures = {method: value / 100 for method, value in numbers.items() if value is not None}
            if figures:
                sets[name] = {**figures, BEST: max(figures.values())}
    if not sets:
        return None
    # A mean over some of the sets could not be compared with the others.
    methods = [name for name in next(iter(sets.values())) if all(name in figures for figures in sets.values())]
    mean = {method: sum(figures[method] for figures in sets.values()) / len(sets) for method in methods}
    mean_auprc = _AUPRC_MEANS if {_key(name) for name in set_names} == _AUPRC_SETS else {}
    return PublishedFigures(_ADBENCH_SOURCE, "auroc", sets, mean, mean_auprc=mean_auprc)


def _series(path: Path) -> PublishedFigures | None:
    rows = [row for row in _rows(path) if "_SMD_" in (row.get("file") or "")]
    if not rows:
        return None
    methods = [name for name in list(rows[0])[1:] if name not in _NOT_METHODS and not name.endswith("_seq_anomaly")]
    methods = [name for name in methods if name not in ("point_anomaly", "seq_anomaly")]
    columns = {name: [value for row in rows if (value := _number(row[name])) is not None] for name in methods}
    mean = {name: sum(values) / len(values) for name, values in columns.items() if len(values) == len(rows)}
    note = (
        f"Means over the {len(rows)} series of SMD in TSB-AD, which are other cuts of the same machines, trained on "
        "the beginning of the test part: for orientation only."
    )
    return PublishedFigures(_SERIES_SOURCE, "vus_pr", {}, mean, note)


def _reference_folder(data: Path) -> Path | None:
    places = [data.resolve(), *data.resolve().parents[:4]]
    return next((place / "reference" for place in places if (place / "reference").is_dir()), None)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _number(text: str | None) -> float | None:
    """Return a cell as a number; None for an empty cell and for text."""
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
