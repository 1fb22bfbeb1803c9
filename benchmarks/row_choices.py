"""Fusion members for rows and alternatives to them, on labelled data of other origin than the published benchmarks'.

Mean AUROC in % over groups of tasks (see `benchmarks/row_tasks.py`; faults of the Tennessee Eastman process only where
their folder is present), one seed: each member alone; fusions of several; other rules of fusing the default members;
and members by the distance from the mean up to which values stay linear before they are compressed (`range_...`, in
standard deviations; infinite: never). Differences of a few tenths are noise. [defaults_rows.md](defaults_rows.md)
explains the choice.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.row_tasks import Floats, RowTask, development_tasks
from cloud.methods import ANALYZERS, Features, FitContext, VectorFeatures
from cloud.methods.fusion import Fusion
from cloud.metrics import auroc
from cloud.modalities import cloud_modality
from shared.modality import Modality
from shared.preprocessing.base import ROW_RANGE, compress, scale_of

DEFAULT = cloud_modality(Modality.TABULAR).default_methods
MEMBERS = (
    "knn",
    "time_estimation",
    "quantile_time_estimation",
    "denoising_likelihood",
    "masked_likelihood",
    "score_norm",
    "dte_c",
    "pca",
    "isolation_forest",
)
FUSIONS = (
    DEFAULT,
    *combinations(DEFAULT, 2),
    *((*DEFAULT, other) for other in MEMBERS if other not in DEFAULT),
    ("time_estimation", "score_norm", "masked_likelihood"),
    ("knn", "masked_likelihood"),
)
QUICK, RANGES = ("knn", "time_estimation", "pca"), (1.5, 3.0, 10.0, np.inf)
TRAIN_SHARE, HELD_OUT_SHARE, MAX_TEST = 0.4, 0.2, 1500

Scores = dict[str, Floats]


def run() -> dict[str, Any]:
    """Return mean AUROC in % by choice."""
    torch.set_num_threads(1)
    found: dict[str, dict[str, list[float]]] = {}
    for task in development_tasks():
        figures = {**_members_and_fusions(task), **_by_range(task)}
        print(task.name, {name: round(value, 1) for name, value in figures.items()}, flush=True)
        for name, value in figures.items():
            found.setdefault(name, {}).setdefault(task.group, []).append(value)
    means = {name: float(np.mean([np.mean(group) for group in groups.values()])) for name, groups in found.items()}
    default = {"fused": " + ".join(DEFAULT), "range": ROW_RANGE}
    return {**{name: f"{mean:.2f}" for name, mean in means.items()}, "default": default}


def _members_and_fusions(task: RowTask) -> dict[str, float]:
    """Return AUROC in % of members, fusions and fusion rules on one task."""
    held_out, test, labels = _scores(task, MEMBERS, ROW_RANGE)
    figures = {name: _percent(labels, test[name]) for name in MEMBERS}
    for members in FUSIONS:
        fusion = Fusion.fit({name: held_out[name] for name in members})
        statistic = fusion.statistic({name: test[name] for name in members})
        figures[" + ".join(members)] = _percent(labels, statistic)
    own = Fusion.fit({name: held_out[name] for name in DEFAULT}).own
    p = np.stack([own[name].p_values(test[name]).values for name in DEFAULT])
    figures["rule_smallest_p"] = _percent(labels, -np.log(p.min(axis=0)))
    figures["rule_harmonic_mean_p"] = _percent(labels, np.log((1.0 / p).mean(axis=0)))
    return figures


def _by_range(task: RowTask) -> dict[str, float]:
    """Return AUROC in % of quick members by the range in which values stay linear."""
    figures: dict[str, float] = {}
    for linear_range in RANGES:
        _, test, labels = _scores(task, QUICK, linear_range)
        figures |= {f"range_{linear_range:g}_{name}": _percent(labels, test[name]) for name in QUICK}
    return figures


def _scores(task: RowTask, methods: Sequence[str], linear_range: float) -> tuple[Scores, Scores, NDArray[np.bool_]]:
    """Return scores of held-out normals and of the test part by method, and the labels of the test part.

    Two fifths of the normals are training rows and one fifth is held out. The test part is the rest and the anomalies,
    at most MAX_TEST of each.
    """
    rng = np.random.default_rng(0)
    normal, anomalous = (rng.permutation(np.flatnonzero(where)) for where in (task.kinds == 0, task.kinds > 0))
    ends = round(TRAIN_SHARE * len(normal)), round((TRAIN_SHARE + HELD_OUT_SHARE) * len(normal))
    test = np.concatenate([normal[ends[1] :][:MAX_TEST], anomalous[:MAX_TEST]])
    train = task.rows[normal[: ends[0]]]
    mean, scale = train.mean(axis=0), scale_of(train.std(axis=0), train.mean(axis=0))

    def features(rows: Floats) -> Features:
        return VectorFeatures(torch.from_numpy(compress((rows - mean) / scale, linear_range)).float().unsqueeze(1))

    context, seen = FitContext(seed=0), features(train)
    held_out_scores: Scores = {}
    test_scores: Scores = {}
    for name in methods:
        analyzer = ANALYZERS[name]()
        analyzer.fit(seen, context)
        for scores, positions in ((held_out_scores, normal[ends[0] : ends[1]]), (test_scores, test)):
            scores[name] = analyzer.score(features(task.rows[positions])).scores.double().numpy()
    return held_out_scores, test_scores, task.kinds[test] > 0


def _percent(labels: NDArray[np.bool_], scores: Floats) -> float:
    return 100.0 * auroc(labels, scores)
