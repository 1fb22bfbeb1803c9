"""Benchmark of labels: false alarms at equal recall after 0, 10, 20 and 50 labels.

A stream follows the normal training data of a set. Its first half is judged, and the samples that the system would ask
about, those with the highest fused scores, are labelled. With these labels the analysis is fitted as `vedette retrain`
fits it: labelled false alarms among the normal data, labelled defects in the member that learns from them. The second
half is judged, and false alarms are counted at the recall of the system without labels at its promised rate, and at
recalls of one half and four fifths.

Tables: the normal rows in file order, the first half to train on, as in the published protocol. The other half is the
normal part of the stream, in random order, with one anomaly for each 19 normal rows in its first half and the other
anomalies in its second half. Series: windows in the order of time, one label for each window asked about.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.protocols import is_table, rows_and_labels, series_split
from cloud.metrics import false_alarms_at, separation
from cloud.modalities import cloud_modality
from cloud.serving.analysis import FUSED, Analysis
from cloud.training.analysis import AnalysisOptions, fit_analysis
from cloud.training.labelled import LabelledSamples
from cloud.training.samples.windows import cut_windows
from cloud.training.settings import TrainingSettings
from shared.bundle import InputSpec
from shared.errors import DataError
from shared.modalities import fit_preprocessor
from shared.modality import Modality

LABELS = (0, 10, 20, 50)
RATE = 0.01  # promised false-alarm rate
RECALLS = {"half": 0.5, "four_fifths": 0.8}
DEVELOPED_ON = ("annthyroid", "breastw", "cardio", "letter", "PageBlocks", "Pima", "satellite", "thyroid", "yeast")
BASELINES = ("knn", "isolation_forest")
MAX_NORMAL, MAX_STREAM, MAX_ANOMALIES = 1000, 1200, 300  # bounds the time of a set
MIN_NORMAL, MIN_ANOMALIES = 400, 20
TOO_FEW = f"fewer than {MIN_NORMAL} normal rows or {MIN_ANOMALIES} anomalies"
ANOMALY_SHARE, HELD_OUT_SHARE = 0.05, 0.3
WINDOW = 32  # readings of a window of a series

Floats = NDArray[np.float64]
Figures = dict[str, dict[str, float]]


@dataclass(frozen=True)
class LabelledStream:
    """Normal samples (n, ...) to train on and to hold out, and both halves of the stream with labels."""

    spec: InputSpec
    modality: Modality
    train: Floats
    held_out: Floats
    asked: Floats
    asked_labels: NDArray[np.bool_]
    judged: Floats
    judged_labels: NDArray[np.bool_]


def table_stream(path: Path, seed: int) -> LabelledStream:
    """Return the stream of a table."""
    rows, labels = rows_and_labels(path)
    random = np.random.default_rng(seed)
    normal, anomalous = np.flatnonzero(~labels), random.permutation(np.flatnonzero(labels))
    half = round(len(normal) / 2)
    first = random.permutation(normal[:half])[:MAX_NORMAL]
    later = random.permutation(normal[half:])[:MAX_STREAM]
    held_out, middle = round(HELD_OUT_SHARE * len(first)), len(later) // 2
    count = min(len(anomalous) // 2, max(5, round(middle * ANOMALY_SHARE / (1 - ANOMALY_SHARE))))
    asked = np.concatenate([later[:middle], anomalous[:count]])
    judged = np.concatenate([later[middle:], anomalous[count : count + MAX_ANOMALIES]])
    spec = InputSpec(channels=tuple(f"x{index + 1}" for index in range(rows.shape[1])))
    return LabelledStream(
        spec,
        Modality.TABULAR,
        rows[first[held_out:]],
        rows[first[:held_out]],
        rows[asked],
        labels[asked],
        rows[judged],
        labels[judged],
    )


def series_stream(path: Path) -> LabelledStream:
    """Return the stream of a series, as windows one after the other."""
    data = series_split(path)
    train = cut_windows(data.train, WINDOW, max(1, len(data.train) // MAX_NORMAL))
    test = cut_windows(data.test, WINDOW, WINDOW // 2)
    labels = cut_windows(data.labels[:, np.newaxis].astype(np.float64), WINDOW, WINDOW // 2).max(axis=(1, 2)) > 0
    spec = InputSpec(
        channels=tuple(f"channel{index + 1}" for index in range(data.train.shape[1])),
        window_length=WINDOW,
        window_stride=WINDOW // 2,
    )
    held_out, middle = round((1 - HELD_OUT_SHARE) * len(train)), len(test) // 2
    # Windows that overlap a boundary are in neither part.
    return LabelledStream(
        spec,
        Modality.SERIES,
        train[: max(1, held_out - WINDOW)],
        train[held_out:],
        test[: max(0, middle - 1)],
        labels[: max(0, middle - 1)],
        test[middle:],
        labels[middle:],
    )


def measure_labels(stream: LabelledStream, seed: int, effort: float) -> tuple[Figures, dict[str, Any]]:
    """Return figures by number of labels and of the baselines, and facts. Raises DataError without judged anomalies."""
    if not stream.judged_labels.any() or stream.judged_labels.all():
        raise DataError("The second half of the stream has one kind of samples only.")
    figures: Figures = {}
    facts: dict[str, Any] = {"judged": len(stream.judged), "anomalies": int(stream.judged_labels.sum())}
    plain = _fitted(stream, LabelledSamples(), seed, effort)
    order = np.argsort(-plain.score(stream.asked)[FUSED], kind="stable")
    scores = plain.score(stream.judged)
    recalled = int(((plain.p_values(scores[FUSED]) <= RATE) & stream.judged_labels).sum())
    for name in BASELINES:
        figures[name] = _figures(scores[name], stream.judged_labels, recalled)
    for count in LABELS:
        asked = order[:count]
        defects, alarms = (stream.asked[asked[stream.asked_labels[asked] == kind]] for kind in (True, False))
        analysis = plain
        if count:
            analysis = _fitted(stream, LabelledSamples(list(defects), list(alarms)), seed, effort)
        fused = analysis.score(stream.judged)[FUSED]
        raised = analysis.p_values(fused) <= RATE
        figures[f"labels_{count}"] = _figures(fused, stream.judged_labels, recalled) | {
            "realised_rate": float(raised[~stream.judged_labels].mean()),
            "recall": float(raised[stream.judged_labels].mean()),
            "learner_weight": analysis.fusion.weights.get("defect_likeness", 0.0),
        }
        facts[f"labels_{count}"] = {"defects": len(defects), "false_alarms": len(alarms)}
    return figures, facts


def score_labels(path: Path, settings: TrainingSettings) -> tuple[Figures, dict[str, Any]]:
    """Return the figures and facts of one set."""
    seed = settings.seed
    stream = table_stream(path, seed) if is_table(path) else series_stream(path)
    return measure_labels(stream, seed, settings.effort)


def has_enough(path: Path) -> bool:
    """Return whether a set has enough normal samples and anomalies for this benchmark."""
    if not is_table(path):
        return True
    _, labels = rows_and_labels(path)
    return int((~labels).sum()) >= MIN_NORMAL and int(labels.sum()) >= MIN_ANOMALIES


def _fitted(stream: LabelledStream, labelled: LabelledSamples, seed: int, effort: float) -> Analysis:
    """Return an analysis whose normal data holds the labelled false alarms, split as other normal samples are."""
    random = np.random.default_rng([seed, 1])
    alarms = np.reshape(np.array(labelled.false_alarms), (-1, *stream.train.shape[1:]))
    alarms = alarms[random.permutation(len(alarms))]
    held_out_count = round(HELD_OUT_SHARE * len(alarms))
    train = np.concatenate([stream.train, alarms[held_out_count:]])
    held_out = np.concatenate([stream.held_out, alarms[:held_out_count]])
    preprocessor = fit_preprocessor(stream.modality, train, stream.spec)
    fused = cloud_modality(stream.modality).default_methods
    options = AnalysisOptions((*fused, *BASELINES), fused, seed, "cpu", effort=effort)
    return fit_analysis(preprocessor, None, train, held_out, options, labelled=labelled).analysis


def _figures(scores: Floats, labels: NDArray[np.bool_], recalled: int) -> dict[str, float]:
    """Return false alarms (shares of the normal samples) at the recall without labels and at RECALLS, and AUROC."""
    normal, anomalous = scores[~labels], scores[labels]
    counts = {"equal": recalled} | {name: int(np.ceil(share * len(anomalous))) for name, share in RECALLS.items()}
    return {
        **{
            f"false_alarms_{name}": false_alarms_at(normal, anomalous, count) / len(normal)
            for name, count in counts.items()
        },
        "auroc": separation(normal, anomalous),
    }


def ratios(figures: Mapping[str, Figures]) -> dict[str, dict[str, float | None]]:
    """Return false alarms with labels over those without, by number of labels, over sets.

    `*_total` is the ratio of the sums over the sets, `*_median` the median of the sets' ratios. A set without a false
    alarm before counts in the sums alone; both are None if no set has one.
    """
    result: dict[str, dict[str, float | None]] = {}
    keys = [f"false_alarms_{name}" for name in ("equal", *RECALLS)]
    for count in LABELS[1:]:
        row: dict[str, float | None] = {}
        for key in keys:
            before = np.array([each["labels_0"][key] for each in figures.values()])
            after = np.array([each[f"labels_{count}"][key] for each in figures.values()])
            raised = before > 0
            row[f"{key}_total"] = float(after.sum() / before.sum()) if raised.any() else None
            row[f"{key}_median"] = float(np.median(after[raised] / before[raised])) if raised.any() else None
        result[f"labels_{count}"] = row
    return result
