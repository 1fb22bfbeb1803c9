"""From training data to samples: a training part, a held-out part to calibrate on, and a labelled part."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.methods.encoders.scale import choose_size
from cloud.training.clips import split_clips
from cloud.training.data import ImageData, TableData, TrainingData, read_image
from cloud.training.settings import TrainingSettings
from cloud.training.videos import VideoData
from cloud.training.windows import choose_length, cut_windows, segments_of
from shared.bundle import InputSpec
from shared.calibration import MIN_CALIBRATION_SIZE
from shared.errors import DataError, SampleRejected
from shared.modality import Modality
from shared.preprocessing import ImagePreprocessor

MIN_TRAIN = 20
_READ_TOGETHER = 64
_SIZED_IMAGES = 50
MAX_TRAINING_PIXELS = 1000 * 640 * 640  # of good images together: a core encodes them in minutes, not hours


@dataclass(frozen=True, slots=True)
class Split:
    """Samples by use. `train`, `held_out`: normal only. `test`: with `test_labels` (n,), true for anomalies, or None.

    Samples are rows (n, features), windows (n, length, channels) images (n, height, width, 3) uint8 or
    clips (n, frames, height, width, 3) uint8.
    """

    spec: InputSpec
    train: NDArray[Any]
    held_out: NDArray[Any]
    test: NDArray[Any] | None
    test_labels: NDArray[np.bool_] | None
    notes: tuple[str, ...]


def split_samples(
    data: TrainingData, settings: TrainingSettings, progress: Callable[[float], None] | None = None
) -> Split:
    """Cut, read and split the data. Raises DataError if there are too few normal samples."""
    generator = np.random.default_rng(settings.seed)
    if isinstance(data, ImageData):
        return _split_images(data, settings, generator, progress)
    if isinstance(data, VideoData):
        share = settings.data.held_out_share
        clips = split_clips(data, settings.video, generator, held_out_share=share, progress=progress)
        return Split(clips.spec, clips.train, clips.held_out, clips.test, clips.test_labels, clips.notes)
    if data.modality is Modality.SERIES:
        return _split_series(data, settings, generator)
    return _split_rows(data, settings, generator)


def _split_rows(data: TableData, settings: TrainingSettings, generator: np.random.Generator) -> Split:
    labels = data.labels if data.labels is not None else np.zeros(len(data.rows), dtype=np.bool_)
    normal = data.rows[data.usable & ~labels]
    anomalous = data.rows[data.usable & labels]
    train, held_out = _shares(len(normal), settings, generator, data.origin, "normal rows")
    test, test_labels = _with_anomalies(normal[held_out], anomalous)
    spec = InputSpec(
        channels=data.columns,
        missing=data.missing,
        categories=dict(data.categories),
        decimal=data.decimal,
        **_modes_of(data, normal[train]),
    )
    return Split(spec, normal[train], normal[held_out], test, test_labels, data.notes)


def _split_series(data: TableData, settings: TrainingSettings, generator: np.random.Generator) -> Split:
    """The earlier normal readings train, the later ones are held out: neighbouring windows are near copies."""
    labels = data.labels if data.labels is not None else np.zeros(len(data.rows), dtype=np.bool_)
    segments = [data.rows[run] for run in segments_of(data.usable & ~labels)]
    length = settings.series.window_length or choose_length([_measured(segment, data) for segment in segments])
    stride = settings.series.window_stride or max(1, length // 4)
    total = sum(len(segment) for segment in segments)
    boundary = round(total * (1 - settings.data.held_out_share))
    before, after = _cut_at(segments, boundary)
    train = _windows_of(before, length, settings.data.max_train)
    held_out = _windows_of(after, length, settings.data.max_held_out)
    if len(train) < MIN_TRAIN or len(held_out) < MIN_CALIBRATION_SIZE:
        raise DataError(
            f"{data.origin}: {total} usable normal readings give {len(train)} windows of {length} time points to train "
            f"on and {len(held_out)} to hold out, and {MIN_TRAIN} and {MIN_CALIBRATION_SIZE} are needed: give more "
            "readings, or a shorter --window-length."
        )
    test, test_labels = _series_test(data, labels, length, stride, held_out)
    spec = InputSpec(
        channels=data.columns,
        window_length=length,
        window_stride=stride,
        missing=data.missing,
        categories=dict(data.categories),
        decimal=data.decimal,
        **_modes_of(data, train[:, -1]),
    )
    return Split(spec, train, held_out, test, test_labels, data.notes)


def _modes_of(data: TableData, normal: NDArray[np.float64]) -> dict[str, Any]:
    """What the spec says of operating modes: those of the normal rows (n, columns) to train on."""
    if not data.mode_column:
        return {}
    mode = normal[:, data.columns.index(data.mode_column)].astype(np.float32)
    return {"mode_channel": data.mode_column, "modes": tuple(np.unique(mode).tolist())}


def _measured(readings: NDArray[np.float64], data: TableData) -> NDArray[np.float64]:
    """Readings (time points, channels) without the mode, what is missing at the mean of its channel."""
    kept = readings[:, [name != data.mode_column for name in data.columns]]
    observed = ~np.isnan(kept)
    mean = np.where(observed, kept, 0.0).sum(axis=0) / np.maximum(observed.sum(axis=0), 1)
    return np.where(observed, kept, mean)


def _series_test(
    data: TableData, labels: NDArray[np.bool_], length: int, stride: int, held_out: NDArray[np.float64]
) -> tuple[NDArray[np.float64] | None, NDArray[np.bool_] | None]:
    """Labelled windows: of the separate test part, or those that touch an anomaly beside the held-out ones."""
    if data.test_rows is not None and data.test_labels is not None:
        windows = cut_windows(data.test_rows, length, stride)
        touched = cut_windows(data.test_labels[:, np.newaxis].astype(np.float64), length, stride).max(axis=(1, 2)) > 0
        usable = np.isfinite(windows) | (np.isnan(windows) if data.missing else np.False_)
        usable = usable.all(axis=(1, 2)) & ~np.isnan(windows).all(axis=(1, 2))
        windows, touched = windows[usable], touched[usable]
        return (windows, touched) if touched.any() and not touched.all() else (None, None)
    anomalous = [np.empty((0, length, data.rows.shape[1]))]
    for run in segments_of(data.usable):
        windows = cut_windows(data.rows[run], length, stride)
        if len(windows):
            touched = cut_windows(labels[run, np.newaxis].astype(np.float64), length, stride).max(axis=(1, 2)) > 0
            anomalous.append(windows[touched])
    return _with_anomalies(held_out, np.concatenate(anomalous))


def _split_images(
    data: ImageData,
    settings: TrainingSettings,
    generator: np.random.Generator,
    progress: Callable[[float], None] | None,
) -> Split:
    chosen = generator.permutation(len(data.good))[: settings.image.max_images]
    spec = _image_spec([data.good[index] for index in chosen[:_SIZED_IMAGES]], settings)
    most = max(MIN_TRAIN + MIN_CALIBRATION_SIZE, MAX_TRAINING_PIXELS // (spec.image_height * spec.image_width))
    chosen = chosen[:most]
    drop = settings.data.bad_rows == "drop"
    total = len(chosen) + len(data.held_out) + len(data.test)

    def report(done: int) -> None:
        if progress is not None:
            progress(done / total)

    good, _ = _read_images([data.good[index] for index in chosen], spec, drop, report)
    if data.held_out:
        apart, _ = _read_images(data.held_out, spec, drop, lambda done: report(len(chosen) + done))
        train_images, held_out_images = _set_apart(data, good, apart)
    else:
        train, held_out = _shares(len(good), settings, generator, data.origin, "good images")
        train_images, held_out_images = good[train], good[held_out]
    notes = data.notes
    if len(chosen) < min(len(data.good), settings.image.max_images):
        notes += (f"{len(chosen)} of {len(data.good)} good images are used: more of this size would take too long",)
    if len(good) < len(chosen):
        notes += (f"{len(chosen) - len(good)} unreadable images were left out",)
    if data.test_labels is None:
        return Split(spec, train_images, held_out_images, None, None, notes)
    before = total - len(data.test)
    test, kept = _read_images(data.test, spec, drop, lambda done: report(before + done))
    return Split(spec, train_images, held_out_images, test, data.test_labels[kept], notes)


def _image_spec(paths: Sequence[Path], settings: TrainingSettings) -> InputSpec:
    """The size of the graph: as set, else chosen from those of these images, of which unreadable ones do not count."""
    height, width = settings.image.height, settings.image.width
    if not height:
        shapes = []
        for path in paths:
            with suppress(SampleRejected):  # told of when all are read
                shapes.append(read_image(path).shape[:2])
        height, width = choose_size([(rows, columns) for rows, columns in shapes], settings.image.max_pixels)
    return InputSpec(image_height=height, image_width=width)


def _set_apart(
    data: ImageData, good: NDArray[np.uint8], apart: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images to train on, and those the user set apart to calibrate on; raises DataError if there are too few."""
    if len(good) < MIN_TRAIN or len(apart) < MIN_CALIBRATION_SIZE:
        raise DataError(
            f"{data.origin}: {len(good)} images in train/good and {len(apart)} in validation/good, and at least "
            f"{MIN_TRAIN} and {MIN_CALIBRATION_SIZE} are needed: give more, or remove validation/good."
        )
    return good, apart


def _read_images(
    paths: Sequence[Path], spec: InputSpec, drop: bool, report: Callable[[int], None]
) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Images (n, height, width, 3), and the positions (n,) of those that could be read, which is all unless `drop`."""
    preprocessor = ImagePreprocessor(spec)
    parts = [np.empty((0, spec.image_height, spec.image_width, 3), dtype=np.uint8)]
    kept: list[int] = []
    for start in range(0, len(paths), _READ_TOGETHER):
        pixels, positions = [], []
        for position in range(start, min(start + _READ_TOGETHER, len(paths))):
            try:
                pixels.append(read_image(paths[position]))
                positions.append(position)
            except SampleRejected as error:
                if not drop:
                    raise DataError(f"{error} Remove it, or leave such out with --drop-bad-rows.") from None
        prepared = preprocessor.prepare(pixels)
        if prepared.rejections and not drop:
            position, reason = prepared.rejections[0]
            raise DataError(
                f"{paths[positions[position]]}: {reason} Remove it, or leave such out with --drop-bad-rows."
            )
        parts.append(prepared.inputs)
        kept += [positions[position] for position in prepared.kept.tolist()]
        report(start + len(positions))
    return np.concatenate(parts), np.array(kept, dtype=np.intp)


def _shares(
    count: int, settings: TrainingSettings, generator: np.random.Generator, origin: str, what: str
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of the training and the held-out part, drawn at random; raises DataError for too few."""
    if count < MIN_TRAIN + MIN_CALIBRATION_SIZE:
        raise DataError(
            f"{origin}: {count} {what}, and at least {MIN_TRAIN + MIN_CALIBRATION_SIZE} are needed, a part of them to "
            "calibrate on: give more normal data."
        )
    held_out = max(round(count * settings.data.held_out_share), MIN_CALIBRATION_SIZE)
    held_out = min(held_out, settings.data.max_held_out, count - MIN_TRAIN)
    order = generator.permutation(count)
    return np.sort(order[held_out:][: settings.data.max_train]), np.sort(order[:held_out])


def _cut_at(
    segments: Sequence[NDArray[np.float64]], boundary: int
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """The segments before and after the reading at `boundary`, which may cut one in two."""
    before, after = [], []
    for segment in segments:
        here = min(max(boundary, 0), len(segment))
        before.append(segment[:here])
        after.append(segment[here:])
        boundary -= len(segment)
    return before, after


def _windows_of(segments: Sequence[NDArray[np.float64]], length: int, most: int) -> NDArray[np.float64]:
    """Windows (n, length, channels) of the segments, as close as `most` of them allow."""
    count = sum(max(len(segment) - length + 1, 0) for segment in segments)
    step = max(1, -(-count // most))
    return np.concatenate([cut_windows(segment, length, step) for segment in segments])


def _with_anomalies(
    normal: NDArray[np.float64], anomalous: NDArray[np.float64]
) -> tuple[NDArray[np.float64] | None, NDArray[np.bool_] | None]:
    if not len(anomalous):
        return None, None
    labels = np.concatenate([np.zeros(len(normal), dtype=np.bool_), np.ones(len(anomalous), dtype=np.bool_)])
    return np.concatenate([normal, anomalous]), labels
