"""Benchmark of one set and one seed: train a bundle on the normal part and measure it on the test part.

Training runs the code of `vedette train`, and scoring runs the code of `vedette evaluate`, so a benchmark measures the
models that users get. This is the only module of the benchmarks that calls the training code.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from cloud.evaluation.baselines import baseline_scores
from cloud.evaluation.images import at_masks, image_baselines, image_blocks, read_masks
from cloud.evaluation.leaderboard import surprise
from cloud.evaluation.method_metrics import Figures, routing_figures, sample_figures
from cloud.evaluation.pixels import pixel_figures
from cloud.evaluation.protocols import BenchmarkSplit, ImageSplit, adbench_split, image_split, series_split
from cloud.evaluation.scoring import BundleScorer, MethodScores, Scored
from cloud.evaluation.series import point_scores, series_figures
from cloud.training.data import TableData
from cloud.training.samples.windows import cut_windows
from cloud.training.settings import TrainingSettings
from cloud.training.train import train_bundle
from shared.bundle import Bundle
from shared.errors import DataError
from shared.images import PixelRange
from shared.modality import Modality

BASELINE_WINDOW = 10  # time points, as for the baselines in published tables
MAX_BASELINE_WINDOWS = 10_000
_ROWS_PER_BLOCK, WINDOWS_PER_BLOCK = 16_384, 4096

Facts = dict[str, Any]


def score_unit(
    benchmark: str, path: Path, variant: str, seed: int, settings: TrainingSettings
) -> tuple[Figures, Facts]:
    """Return the metrics by method of one set under one seed, and facts of the run.

    Raises DataError if the data cannot be used.
    """
    seeded = settings.model_copy(update={"seed": seed})
    if benchmark == "adbench":
        return score_rows(adbench_split(path, variant, seed), path.name, seeded)
    if benchmark == "series":
        return score_series(series_split(path), path.name, seeded)
    if benchmark == "images":
        return score_images(image_split(path), seeded)
    if benchmark == "video":
        from cloud.evaluation.video import score_video

        return score_video(path, seeded)
    if benchmark == "labels":
        from cloud.evaluation.labels import score_labels

        return score_labels(path, seeded)
    raise DataError(f"There is no benchmark {benchmark!r}.")


def score_rows(split: BenchmarkSplit, origin: str, settings: TrainingSettings) -> tuple[Figures, Facts]:
    """Train and measure a bundle on the rows of a table."""
    bundle = train_bundle(training_table(Modality.TABULAR, origin, split.train), settings, Ed25519PrivateKey.generate())
    scored = BundleScorer(bundle, settings.device).score(row_blocks(split.test))
    baselines = baseline_scores(split.train, split.test[scored.kept], seed=settings.seed)
    labels = split.labels[scored.kept]
    methods = {**scored.methods, **{name: MethodScores(scores) for name, scores in baselines.items()}}
    figures = sample_figures(labels, methods) | routing_figures(labels, scored, seed=settings.seed)
    return figures, facts_of(bundle, scored, len(split.train), split.labels)


def score_series(split: BenchmarkSplit, origin: str, settings: TrainingSettings) -> tuple[Figures, Facts]:
    """Train and measure a bundle on the windows of a series, one at every time point of the test part.

    The score of a time point is the mean over the windows that contain it. Routers forward windows, so upload shares
    count windows; a window is anomalous if any of its points is. Raises DataError if the test part is shorter than a
    window.
    """
    bundle = train_bundle(training_table(Modality.SERIES, origin, split.train), settings, Ed25519PrivateKey.generate())
    length, points = bundle.manifest.input.window_length, len(split.test)
    if points < length:
        raise DataError(f"{origin}: the test part has {points} time points, but a window has {length}.")
    scored = BundleScorer(bundle, settings.device).score(window_blocks(split.test, length))
    by_point = {name: point_scores(item.scores, scored.kept, length, points) for name, item in scored.methods.items()}
    by_point |= _window_baselines(split, settings.seed)
    figures = {name: series_figures(split.labels, scores) for name, scores in by_point.items()}
    window_labels = np.lib.stride_tricks.sliding_window_view(split.labels, length).max(axis=1)[scored.kept]
    if window_labels.all():
        return figures, facts_of(bundle, scored, len(split.train), split.labels)

    def compute_metrics(p_values: NDArray[np.float64]) -> dict[str, float]:
        return series_figures(split.labels, point_scores(surprise(p_values), scored.kept, length, points))

    board = routing_figures(window_labels, scored, seed=settings.seed, compute_metrics=compute_metrics)
    return figures | board, facts_of(bundle, scored, len(split.train), split.labels)


def score_images(split: ImageSplit, settings: TrainingSettings) -> tuple[Figures, Facts]:
    """Train and measure a bundle on images; pixel metrics need a mask for every defective image."""
    bundle = train_bundle(split.train, settings, Ed25519PrivateKey.generate())
    scored = BundleScorer(bundle, settings.device).score(
        image_blocks(split.test, PixelRange.of(bundle.manifest.input.pixel_range))
    )
    labels = split.labels[scored.kept]
    methods = dict(scored.methods)
    tested = [split.test[index] for index in scored.kept]
    methods |= image_baselines(bundle, split.train.good, tested, seed=settings.seed)
    figures = sample_figures(labels, methods) | routing_figures(labels, scored, seed=settings.seed)
    masks = read_masks([split.masks[index] for index in scored.kept], labels)
    for name, method in scored.methods.items():
        if masks is not None and method.maps is not None:
            figures[name] |= pixel_figures(*at_masks(method.maps, masks))
    return figures, facts_of(bundle, scored, len(split.train.good), split.labels)


def window_blocks(readings: NDArray[np.float64], length: int) -> Iterator[NDArray[np.float64]]:
    """Yield windows (n, length, channels) that start at every time point, WINDOWS_PER_BLOCK at a time."""
    count = len(readings) - length + 1
    for start in range(0, count, WINDOWS_PER_BLOCK):
        yield cut_windows(readings[start : min(start + WINDOWS_PER_BLOCK, count) + length - 1], length, 1)


def row_blocks(rows: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Yield rows in blocks of _ROWS_PER_BLOCK."""
    for start in range(0, len(rows), _ROWS_PER_BLOCK):
        yield rows[start : start + _ROWS_PER_BLOCK]


def training_table(modality: Modality, origin: str, rows: NDArray[np.float64]) -> TableData:
    """Return normal rows or readings as training data."""
    prefix = "x" if modality is Modality.TABULAR else "channel"
    columns = tuple(f"{prefix}{index + 1}" for index in range(rows.shape[1]))
    usable = np.asarray(np.isfinite(rows).all(axis=1))
    return TableData(modality, origin, columns, rows, usable)


def _window_baselines(split: BenchmarkSplit, seed: int) -> dict[str, NDArray[np.float64]]:
    """Return point scores (time points,) of the baselines on windows of BASELINE_WINDOW points, by name."""
    length = min(BASELINE_WINDOW, len(split.train), len(split.test))
    step = max(1, -(-(len(split.train) - length + 1) // MAX_BASELINE_WINDOWS))
    mean, deviation = split.train.mean(axis=0), split.train.std(axis=0)
    scale = np.where(deviation > 0, deviation, 1.0)
    train, test = ((readings - mean) / scale for readings in (split.train, split.test))
    normal = cut_windows(train, length, step).reshape(-1, length * train.shape[1])
    windows = cut_windows(test, length, 1).reshape(-1, length * test.shape[1])
    starts = np.arange(len(windows))
    baselines = baseline_scores(normal, windows, seed=seed)
    return {name: point_scores(scores, starts, length, len(test)) for name, scores in baselines.items()}


def facts_of(bundle: Bundle, scored: Scored, train_samples: int, labels: NDArray[np.bool_]) -> Facts:
    """Return facts of a run for the result page: sample counts, edge artefact, training notes."""
    training = bundle.manifest.training
    return {
        "normal_samples": train_samples,
        "test_samples": len(labels),
        "anomalies": int(labels.sum()),
        "rejected": len(scored.rejections),
        "edge": scored.edge,
        "window_length": bundle.manifest.input.window_length,
        "float_layers": training.get("float_layers", {}),
        "notes": list(training.get("notes", [])),
        "training_seconds": training.get("seconds"),
    }
