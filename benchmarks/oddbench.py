"""Linear range of rows, members on normal scores and rules for weights, on real tables of OddBench.

OddBench (GitHub repository psorus/Outformer, folder benchmarks/oddbench) holds tables in which the values of one
column, removed, make a row an anomaly. No set is part of this repository: put the `.npz` files into a folder `oddbench`
of the data folder. The first 160 sets by name are taken that have 200 to 10,000 rows, at most 100 features, at least
100 normal training rows, 20 normal and 20 anomalous test rows, and no missing value. Defaults are chosen on every other
set, from the first on (`choosing`); the other half only confirms them (`confirming`). At most 1500 training
rows and 400 test rows of each kind are drawn at random from a set; three tenths of the training rows are held out.

Each figure is a mean of AUROC / AUPRC in % over the sets of a half, one seed. `knn.range_...`: deviations beyond which
values are compressed, 1000 for never. `a + b, power k`: fusion with weights that are the k-th power of the AUROC above
chance on broken relations; 0: equal weights. `members`: fusions with the methods that train networks, on every tenth
set of a half, if it has at most 1200 training rows and 40 features, with three tenths of the training steps; `--quick`
leaves them out.
[defaults_rows.md](defaults_rows.md) explains the choice.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.data_folder import data_folder
from cloud.evaluation.metrics import average_precision
from cloud.methods import ANALYZERS, FitContext
from cloud.methods.fusion import Fusion
from cloud.metrics import auroc, separation
from cloud.modalities import cloud_modality
from cloud.serving.encoding import Samples
from cloud.training.modalities import training_modality
from shared.bundle import InputSpec
from shared.modality import Modality
from shared.preprocessing import TabularPreprocessor
from shared.preprocessing.base import ROW_RANGE

SETS, MAX_TRAIN, MAX_TEST, HELD_OUT_SHARE = 160, 1500, 400, 0.3
MIN_ROWS, MAX_ROWS, MAX_FEATURES, MIN_TRAIN, MIN_TEST = 200, 10_000, 100, 100, 20
HALVES = ("choosing", "confirming")
NEVER = 1000.0
RANGES, POWERS = (3.0, 10.0, NEVER), (0.0, 1.0, 2.0, 4.0)
NEIGHBOURS = ("time_estimation", "quantile_time_estimation")
QUICK = (*NEIGHBOURS, "pca")
DEFAULT = cloud_modality(Modality.TABULAR).default_methods
SLOW_EVERY, MAX_SLOW_ROWS, MAX_SLOW_FEATURES, SLOW_EFFORT = 10, 1200, 40, 0.3
WITHOUT_QUANTILES = tuple(name for name in DEFAULT if name != "quantile_time_estimation")
FUSIONS = (DEFAULT, *combinations(DEFAULT, len(DEFAULT) - 1))

Floats = NDArray[np.float64]
Scores = Mapping[str, Floats]


@dataclass(frozen=True)
class OddSet:
    """One table: normal rows `train`, labelled rows `test` with `labels` (n,), true for anomalies."""

    name: str
    train: Floats
    test: Floats
    labels: NDArray[np.bool_]


def run(quick: bool = False) -> dict[str, Any]:
    """Return mean AUROC / AUPRC in % by half and choice, and the number of sets; `quick`: without `members`."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # constant features of single sets
    found: dict[str, dict[str, list[tuple[float, float]]]] = {half: {} for half in HALVES}
    for position, task in enumerate(odd_sets()):
        figures = _quick_figures(task)
        is_slow = not quick and position // len(HALVES) % SLOW_EVERY == 0 and len(task.train) <= MAX_SLOW_ROWS
        if is_slow and task.train.shape[1] <= MAX_SLOW_FEATURES:
            figures |= {f"members.{name}": value for name, value in _slow_figures(task).items()}
        print(task.name, {name: round(value[0], 1) for name, value in figures.items()}, flush=True)
        for name, value in figures.items():
            found[HALVES[position % len(HALVES)]].setdefault(name, []).append(value)
    return {
        half: {
            name: f"{np.mean([value[0] for value in values]):.2f} / {np.mean([value[1] for value in values]):.2f}"
            for name, values in by_name.items()
        }
        | {"sets": max(map(len, by_name.values()), default=0)}
        | ({} if quick else {"members.sets": len(by_name.get(f"members.{DEFAULT[0]}", []))})
        for half, by_name in found.items()
    }


def odd_sets() -> Iterator[OddSet]:
    """Yield the sets, at most MAX_TRAIN and twice MAX_TEST rows of each; none if the folder is absent."""
    usable = (task for path in sorted((data_folder() / "oddbench").glob("*.npz")) for task in _usable(path))
    yield from islice(usable, SETS)


def _usable(path: Path) -> Iterator[OddSet]:
    with np.load(path) as arrays:
        train = arrays["train"][arrays["train_labels"] == 0].astype(np.float64)
        test, labels = arrays["test"].astype(np.float64), arrays["test_labels"].astype(np.bool_)
    fits = MIN_ROWS <= len(train) + len(test) <= MAX_ROWS and train.shape[1] <= MAX_FEATURES
    counts = len(train) >= MIN_TRAIN and min(labels.sum(), (~labels).sum()) >= MIN_TEST
    if not (fits and counts and np.isfinite(train).all() and np.isfinite(test).all()):
        return
    rng = np.random.default_rng(0)
    train = train[rng.permutation(len(train))[:MAX_TRAIN]]
    kept = np.concatenate([rng.permutation(np.flatnonzero(labels == kind))[:MAX_TEST] for kind in (False, True)])
    yield OddSet(path.stem, train, test[kept], labels[kept])


def _quick_figures(task: OddSet) -> dict[str, tuple[float, float]]:
    """Return AUROC and AUPRC in % of methods without a network, and of their fusions."""
    figures: dict[str, tuple[float, float]] = {}
    for linear_range in RANGES:
        parts = _Parts.of(task, linear_range)
        figures[f"knn.range_{linear_range:g}"] = _percent(task, parts.scores(("knn",))[1]["knn"])
    parts = _Parts.of(task, ROW_RANGE)
    held_out, test, copies = parts.scores(QUICK)
    figures |= {name: _percent(task, test[name]) for name in QUICK}
    for members in (NEIGHBOURS, QUICK):
        for power in POWERS:
            figures[_name(members, power)] = _fused(task, members, power, held_out, test, copies)
    return figures


def _slow_figures(task: OddSet) -> dict[str, tuple[float, float]]:
    """Return AUROC and AUPRC in % of the default members and their fusions, by linear range without the new member."""
    held_out, test, copies = _Parts.of(task, ROW_RANGE).scores(DEFAULT)
    figures = {name: _percent(task, test[name]) for name in DEFAULT}
    for members in FUSIONS:
        for power in (0.0, 2.0):
            figures[_name(members, power)] = _fused(task, members, power, held_out, test, copies)
    narrow = _Parts.of(task, RANGES[0]).scores(WITHOUT_QUANTILES)
    figures[f"{_name(WITHOUT_QUANTILES, 0.0)}, range {RANGES[0]:g}"] = _fused(task, WITHOUT_QUANTILES, 0.0, *narrow)
    return figures


@dataclass(frozen=True)
class _Parts:
    """Prepared rows: training part, held-out normals, test part, and copies of held-out rows with broken relations."""

    train: Samples
    others: tuple[Samples, Samples, Samples | None]

    @classmethod
    def of(cls, task: OddSet, linear_range: float) -> "_Parts":
        held = round(HELD_OUT_SHARE * len(task.train))
        spec = InputSpec(channels=tuple(f"x{index}" for index in range(task.train.shape[1])))
        preprocessor = TabularPreprocessor.fit(task.train[held:], spec, linear_range)
        held_out, train, test = (
            Samples.prepare(preprocessor, rows) for rows in (task.train[:held], task.train[held:], task.test)
        )
        copies = training_modality(Modality.TABULAR).weighing_copies(None, held_out, seed=0)
        return cls(train, (held_out, test, copies))

    def scores(self, methods: Sequence[str]) -> tuple[Scores, Scores, Scores]:
        """Return scores of held-out rows, test rows and copies by method; no copies of rows of a single feature."""
        device, context = torch.device("cpu"), FitContext(seed=0, effort=SLOW_EFFORT)
        normals = self.train.features(None, device)
        found: tuple[dict[str, Floats], ...] = ({}, {}, {})
        for name in methods:
            analyzer = ANALYZERS[name]()
            analyzer.fit(normals, context)
            for scores, part in zip(found, self.others, strict=True):
                if part is not None:
                    with torch.inference_mode():
                        scores[name] = analyzer.score(part.features(None, device)).scores.double().numpy()
        held_out, test, copies = found
        return held_out, test, copies


def _fused(
    task: OddSet, members: Sequence[str], power: float, held_out: Scores, test: Scores, copies: Scores
) -> tuple[float, float]:
    worth = None
    if copies and power:
        worth = {name: max(separation(held_out[name], copies[name]) - 0.5, 0.0) ** power for name in members}
    fusion = Fusion.fit({name: held_out[name] for name in members}, worth=worth)
    return _percent(task, fusion.statistic({name: test[name] for name in members}))


def _name(members: Sequence[str], power: float) -> str:
    return f"{' + '.join(members)}, power {power:g}"


def _percent(task: OddSet, scores: Floats) -> tuple[float, float]:
    return 100.0 * auroc(task.labels, scores), 100.0 * average_precision(task.labels, scores)
