"""What a benchmark computes of one set and one seed: a bundle trained on the normal part, and its figures on the rest.

The bundle is made by the very code that `vedette train` runs and is scored as `vedette evaluate` scores it, so that a
benchmark measures what users get. All knowledge of the training code that benchmarks need is in this module.
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
from cloud.evaluation.protocols import ImagePart, Part, adbench_part, image_part, series_part
from cloud.evaluation.scoring import BundleScorer, MethodScores, Scored
from cloud.evaluation.series import point_scores, series_figures
from cloud.training.data import TableData
from cloud.training.samples.windows import cut_windows
from cloud.training.settings import TrainingSettings
from cloud.training.train import train_bundle
from shared.bundle import Bundle
from shared.errors import DataError
from shared.modality import Modality

BASELINE_WINDOW = 10  # time points, as the naive figures beside which ours are shown
MAX_BASELINE_WINDOWS = 10_000
_ROWS_A_BLOCK, WINDOWS_PER_BLOCK = 16_384, 4096

Facts = dict[str, Any]


def score_unit(
    benchmark: str, path: Path, variant: str, seed: int, settings: TrainingSettings
) -> tuple[Figures, Facts]:
    """Figures by method of one set under one seed, and facts of the run. Raises DataError for data it cannot use."""
    seeded = settings.model_copy(update={"seed": seed})
    if benchmark == "adbench":
        return score_rows(adbench_part(path, variant, seed), path.name, seeded)
    if benchmark == "series":
        return score_series(series_part(path), path.name, seeded)
    if benchmark == "images":
        return score_images(image_part(path), seeded)
    if benchmark == "video":
        from cloud.evaluation.video import score_video

        return score_video(path, seeded)
    raise DataError(f"There is no benchmark {benchmark!r}.")


def score_rows(part: Part, origin: str, settings: TrainingSettings) -> tuple[Figures, Facts]:
    """Rows of a table, one sample each."""
    bundle = train_bundle(_table(Modality.TABULAR, origin, part.train), settings, Ed25519PrivateKey.generate())
    scored = BundleScorer(bundle, settings.device).score(row_blocks(part.test))
    baselines = baseline_scores(part.train, part.test[scored.kept], seed=settings.seed)
    labels = part.labels[scored.kept]
    said = {**scored.methods, **{name: MethodScores(scores) for name, scores in baselines.items()}}
    figures = sample_figures(labels, said) | routing_figures(labels, scored, seed=settings.seed)
    return figures, facts_of(bundle, scored, len(part.train), part.labels)


def score_series(part: Part, origin: str, settings: TrainingSettings) -> tuple[Figures, Facts]:
    """Windows at every time point of the test part; their scores, as means over the windows that hold it, of points.

    A router sends windows, so upload shares are of windows; a window is anomalous if any of its points is.
    """
    bundle = train_bundle(_table(Modality.SERIES, origin, part.train), settings, Ed25519PrivateKey.generate())
    length, points = bundle.manifest.input.window_length, len(part.test)
    if points < length:
        raise DataError(f"{origin}: the test part has {points} time points, and a window has {length}.")
    scored = BundleScorer(bundle, settings.device).score(window_blocks(part.test, length))
    said = {name: point_scores(of.scores, scored.kept, length, points) for name, of in scored.methods.items()}
    said |= _window_baselines(part, settings.seed)
    figures = {name: series_figures(part.labels, scores) for name, scores in said.items()}
    touched = np.lib.stride_tricks.sliding_window_view(part.labels, length).max(axis=1)[scored.kept]
    if touched.all():
        return figures, facts_of(bundle, scored, len(part.train), part.labels)

    def judge(p_values: NDArray[np.float64]) -> dict[str, float]:
        return series_figures(part.labels, point_scores(surprise(p_values), scored.kept, length, points))

    board = routing_figures(touched, scored, seed=settings.seed, judge=judge)
    return figures | board, facts_of(bundle, scored, len(part.train), part.labels)


def score_images(part: ImagePart, settings: TrainingSettings) -> tuple[Figures, Facts]:
    """Images, one sample each; pixel figures where there are masks for all defective ones."""
    bundle = train_bundle(part.train, settings, Ed25519PrivateKey.generate())
    scored = BundleScorer(bundle, settings.device).score(image_blocks(part.test))
    labels = part.labels[scored.kept]
    said = dict(scored.methods)
    judged = [part.test[index] for index in scored.kept]
    said |= image_baselines(bundle, part.train.good, judged, seed=settings.seed)
    figures = sample_figures(labels, said) | routing_figures(labels, scored, seed=settings.seed)
    masks = read_masks([part.masks[index] for index in scored.kept], labels)
    for name, method in scored.methods.items():
        if masks is not None and method.maps is not None:
            figures[name] |= pixel_figures(*at_masks(method.maps, masks))
    return figures, facts_of(bundle, scored, len(part.train.good), part.labels)


def window_blocks(readings: NDArray[np.float64], length: int) -> Iterator[NDArray[np.float64]]:
    """The windows (n, length, channels) that begin at every time point, some thousands at a time."""
    count = len(readings) - length + 1
    for start in range(0, count, WINDOWS_PER_BLOCK):
        yield cut_windows(readings[start : min(start + WINDOWS_PER_BLOCK, count) + length - 1], length, 1)


def row_blocks(rows: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """The rows, some thousands at a time."""
    for start in range(0, len(rows), _ROWS_A_BLOCK):
        yield rows[start : start + _ROWS_A_BLOCK]


def _table(modality: Modality, origin: str, rows: NDArray[np.float64]) -> TableData:
    """Normal rows or readings as training data."""
    prefix = "x" if modality is Modality.TABULAR else "channel"
    columns = tuple(f"{prefix}{index + 1}" for index in range(rows.shape[1]))
    usable = np.asarray(np.isfinite(rows).all(axis=1))
    return TableData(modality, origin, columns, rows, usable)


def _window_baselines(part: Part, seed: int) -> dict[str, NDArray[np.float64]]:
    """Point scores (time points,) of the baselines on windows of BASELINE_WINDOW."""
    length = min(BASELINE_WINDOW, len(part.train), len(part.test))
    step = max(1, -(-(len(part.train) - length + 1) // MAX_BASELINE_WINDOWS))
    mean, deviation = part.train.mean(axis=0), part.train.std(axis=0)
    scale = np.where(deviation > 0, deviation, 1.0)
    train, test = ((readings - mean) / scale for readings in (part.train, part.test))
    normal = cut_windows(train, length, step).reshape(-1, length * train.shape[1])
    windows = cut_windows(test, length, 1).reshape(-1, length * test.shape[1])
    starts = np.arange(len(windows))
    found = baseline_scores(normal, windows, seed=seed)
    return {name: point_scores(scores, starts, length, len(test)) for name, scores in found.items()}


def facts_of(bundle: Bundle, scored: Scored, train_samples: int, labels: NDArray[np.bool_]) -> Facts:
    """What a page says of a run beside its figures."""
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
