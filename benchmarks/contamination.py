"""Anomalies in the training data: detection with and without trimming, at 0, 5 and 10 % contamination.

One-class tasks on real data that comes with packages: each digit of scikit-learn's `digits` and each surface of river's
`ImageSegments` as the normal class, and both classes of river's `Phishing`; the ADBench sets as well where they are
present.

* `scattered` contamination is drawn from all anomalies, `clustered` from one class of them (where there is only one
  class, from the neighbours of one anomaly). The training and the held-out part are contaminated alike.
* Trimming leaves out the share of contamination, and 5 % where there is none, which shows the cost of trimming.
* AUROC is measured on fresh samples. `same_kind` counts only anomalies of the kind that clustered contamination is made
  of.
* `ratio`: trimmed over untrimmed AUROC of the same method on the same draw.
* `removed`: share of the contamination that trimming left out.
* `false_alarms`: share of fresh normals at or below a p-value of 0.1 with an untrimmed held-out part, as in Vedette.
  `false_alarms_if_held_out_trimmed`: the same with a trimmed one.
"""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.row_tasks import Floats, RowTask, adbench_tasks, packaged_tasks
from cloud.methods import ANALYZERS, FitContext, VectorFeatures
from cloud.methods.fusion import Fusion
from cloud.metrics import auroc
from cloud.modalities import cloud_modality
from cloud.training.trimming import likely
from shared.bundle import InputSpec
from shared.diffusion.training import OptimizerSettings
from shared.modalities import fit_preprocessor
from shared.modality import Modality

SHARES = (0.0, 0.05, 0.1)
TRIMMED_SHARE_IF_CLEAN = 0.05
SEEDS = 2
FUSED_TASKS = ("digits3", "digits8", "segments1", "segments4", "phishing0")
FUSED_STEPS = 500  # training steps, a quarter of the default, because the benchmark trains many times
FALSE_ALARM_RATE = 0.1


@dataclass(frozen=True)
class Draw:
    """Training, held-out and test rows of a task, drawn at random.

    The first `clean` rows of `train` are normal, the rest is contamination; `held_out` also ends with contamination.
    `labels`: (test,) bool, true for anomalies. `same_kind`: (test,) bool, true for the kind of the contamination.
    """

    train: Floats
    held_out: Floats
    test: Floats
    labels: NDArray[np.bool_]
    same_kind: NDArray[np.bool_]
    clean: int


def run() -> dict[str, Any]:
    """Return mean AUROC over task groups, untrimmed and trimmed, their ratios, and false-alarm rates."""
    torch.set_num_threads(1)
    packaged = list(packaged_tasks())
    chosen = [task for task in packaged if task.name in FUSED_TASKS]
    figures = {
        "knn": measure(packaged, ("knn",)),
        "fused": measure(chosen, cloud_modality(Modality.TABULAR).default_methods, seeds=1),
    }
    sets = list(adbench_tasks())
    return figures | ({"knn_adbench": measure(sets, ("knn",), seeds=1)} if sets else {})


def measure(tasks: list[RowTask], methods: tuple[str, ...], seeds: int = SEEDS) -> dict[str, Any]:
    """Return the figures of one method or of the fusion of several, by kind and share of contamination."""
    figures: dict[str, Any] = {}
    for clustered in (False, True):
        for share in SHARES if not clustered else SHARES[1:]:
            found: dict[str, list[dict[str, float]]] = {}
            for task in tasks:
                results = [compare(draw(task, share, clustered, seed), share, methods, seed) for seed in range(seeds)]
                found.setdefault(task.name.rstrip("0123456789"), []).extend(results)
            name = f"{'clustered' if clustered else 'scattered'}_{share:.0%}" if share else "clean"
            figures[name] = _means(found, clustered)
            print(name, figures[name], flush=True)
    return figures


def compare(split: Draw, share: float, methods: tuple[str, ...], seed: int) -> dict[str, float]:
    """Return the figures of one draw, with and without trimming."""
    trimmed_share = share or TRIMMED_SHARE_IF_CLEAN
    kept = _kept(split.train, trimmed_share, seed)
    bad = len(split.train) - split.clean
    result: dict[str, float] = {"removed": 1.0 - np.count_nonzero(kept >= split.clean) / bad} if bad else {}
    counted = ~split.labels | split.same_kind
    for name, train in {"untrimmed": split.train, "trimmed": split.train[kept]}.items():
        score, fusion = _fit(train, split.held_out, methods, seed)
        statistic = fusion.statistic(score(split.test))
        result[name] = auroc(split.labels, statistic)
        result[f"same_kind_{name}"] = auroc(split.labels[counted], statistic[counted])
    fresh = score(split.test[~split.labels])
    for name, held_out in {
        "": split.held_out,
        "_if_held_out_trimmed": split.held_out[_kept(split.held_out, trimmed_share, seed)],
    }.items():
        calibrated = Fusion.fit(score(held_out))
        p = calibrated.p_values(calibrated.statistic(fresh)).values
        result[f"false_alarms{name}"] = float((p <= FALSE_ALARM_RATE).mean())
    return result


def draw(task: RowTask, share: float, clustered: bool, seed: int) -> Draw:
    """Return two fifths of the normals as training rows and one fifth as held-out rows, both contaminated.

    The test rows are the remaining normals and the anomalies that were not used as contamination.
    """
    rng = np.random.default_rng([seed, zlib.crc32(task.name.encode())])
    normal, anomalous = (rng.permutation(np.flatnonzero(where)) for where in (task.kinds == 0, task.kinds > 0))
    pool = _cluster(task, anomalous, rng) if clustered else anomalous
    ends = (2 * len(normal) // 5, 3 * len(normal) // 5)
    bad = [min(round(share / (1 - share) * count), len(pool) // 4) for count in (ends[0], ends[1] - ends[0])]
    train, held_out = (
        np.append(normal[: ends[0]], pool[: bad[0]]),
        np.append(normal[ends[0] : ends[1]], pool[bad[0] : sum(bad)]),
    )
    test = np.append(normal[ends[1] :], np.setdiff1d(anomalous, pool[: sum(bad)]))
    rows = task.rows
    return Draw(rows[train], rows[held_out], rows[test], task.kinds[test] > 0, np.isin(test, pool), ends[0])


def _cluster(task: RowTask, anomalous: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.intp]:
    """Return positions of the anomalies of one random class, in random order.

    If there is only one class, return one anomaly and its neighbours.
    """
    kinds = np.unique(task.kinds[anomalous])
    if len(kinds) > 1:
        return np.asarray(anomalous[task.kinds[anomalous] == rng.choice(kinds)])
    spread = task.rows.std(axis=0)
    scaled = task.rows[anomalous] / np.where(spread > 0, spread, 1.0)
    nearest = np.square(scaled - scaled[0]).sum(axis=1).argsort(kind="stable")
    return anomalous[rng.permutation(nearest[: len(anomalous) // 2])]


def _inputs(train: Floats, rows: Floats) -> NDArray[np.float32]:
    spec = InputSpec(channels=tuple(f"x{index}" for index in range(train.shape[1])))
    inputs: NDArray[np.float32] = fit_preprocessor(Modality.TABULAR, train, spec).prepare(rows).inputs
    return inputs


def _kept(rows: Floats, share: float, seed: int) -> NDArray[np.intp]:
    """Return positions of the rows that trimming by `share` keeps."""
    return likely(torch.from_numpy(_inputs(rows, rows)), share, torch.Generator().manual_seed(seed))


def _fit(train: Floats, held_out: Floats, methods: tuple[str, ...], seed: int) -> tuple[Any, Fusion]:
    """Return a function from rows to scores by method, and the fusion of these scores."""
    context = FitContext(seed=seed, training=OptimizerSettings(steps=FUSED_STEPS))
    normals = VectorFeatures(torch.from_numpy(_inputs(train, train)).unsqueeze(1))
    fitted = {name: ANALYZERS[name]() for name in methods}
    for analyzer in fitted.values():
        analyzer.fit(normals, context)

    def score(rows: Floats) -> dict[str, Floats]:
        features = VectorFeatures(torch.from_numpy(_inputs(train, rows)).unsqueeze(1))
        with torch.inference_mode():
            return {name: analyzer.score(features).scores.double().numpy() for name, analyzer in fitted.items()}

    return score, Fusion.fit(score(held_out))


def _means(found: dict[str, list[dict[str, float]]], clustered: bool) -> dict[str, float]:
    """Return the means over groups, and the ratio of trimmed to untrimmed AUROC.

    Each group has the same weight, so ten digits weigh as much as one other task.
    """
    keys: tuple[str, ...] = ("untrimmed", "trimmed", "removed", "false_alarms", "false_alarms_if_held_out_trimmed")
    keys = (*keys, "same_kind_untrimmed", "same_kind_trimmed") if clustered else keys
    means = {}
    for key in keys:
        values = [np.mean([one[key] for one in group]) for group in found.values() if key in group[0]]
        if values:
            means[key] = round(float(np.mean(values)), 4)
    return means | {"ratio": round(means["trimmed"] / means["untrimmed"], 4)}
