"""Devices of the demo that see the user's own images and readings."""

from pathlib import Path

import numpy as np

from cloud.demo.streams import DevicePlan, ImageStream, WindowStream, write_csv
from cloud.training.data import TableData
from cloud.training.modalities import load_training_data
from cloud.training.samples import MIN_TRAIN
from shared.calibration import MIN_CALIBRATION_SIZE
from shared.errors import DataError
from shared.images import IMAGE_SUFFIXES
from shared.modality import Modality

TRAINING_SHARE = 0.6
MIN_IMAGES = MIN_TRAIN + MIN_CALIBRATION_SIZE  # needed by training if no images are set aside for calibration
MIN_READINGS = 400
LABEL = "label"


def images_plan(source: Path, folder: Path, seconds: float) -> DevicePlan:
    """Return a camera that sees the user's images.

    `source` has the MVTec AD layout (`train/good`, `test/good`, `test/<defect>`, optionally `validation/good`), or is a
    flat folder of good images: the camera trains on the first TRAINING_SHARE and sees the rest.
    """
    if not source.is_dir():
        raise DataError(
            f"{source}: no such folder. --images takes a folder of good images, or one laid out as MVTec AD."
        )
    if (source / "train" / "good").is_dir():
        good = _images(source / "train" / "good")
        tests = [(path, path.parent.name != "good") for path in _images(source / "test")]
        np.random.default_rng(0).shuffle(tests)
    else:
        every = _images(source)
        split = max(int(len(every) * TRAINING_SHARE), MIN_IMAGES)
        good, tests = every[:split], [(path, False) for path in every[split:]]
    apart = _images(source / "validation" / "good") if (source / "train" / "good").is_dir() else []
    needed = MIN_TRAIN if apart else MIN_IMAGES
    if len(good) < needed:
        raise DataError(f"{source}: {len(good)} good images to train on; at least {needed} are needed: add more.")
    if not tests:
        raise DataError(f"{source}: {len(good)} images to train on, none left to screen: add more.")
    for kind, paths in (("train", good), ("validation", apart)):
        for index, path in enumerate(paths):
            _link(path, folder / "camera" / kind / "good" / f"{index:05d}{path.suffix.lower()}")
    stream = folder / "camera" / "images"
    anomalous = set()
    for index, (path, is_defect) in enumerate(tests):
        name = f"{index:05d}-{path.parent.name}-{path.stem[:40]}{path.suffix.lower()}"
        _link(path, stream / name)
        if is_defect:
            anomalous.add(name)
    return DevicePlan(
        device_id="camera",
        modality=Modality.IMAGE,
        bundle_name="camera",
        training_data=folder / "camera",
        stream=ImageStream(stream, frozenset(anomalous)),
        rate_per_s=max(len(tests) / (0.8 * seconds), 0.1),
        about=f"{len(tests)} images from {source}",
    )


def series_plan(source: Path, folder: Path, seconds: float) -> DevicePlan:
    """Return a sensor that trains on the first TRAINING_SHARE of the user's series and sees the rest.

    The training file keeps labels: training leaves out marked readings and windows across the gap.
    """
    data = load_training_data(source, Modality.SERIES)
    if not isinstance(data, TableData):
        raise DataError(f"{source}: --series takes a file of readings (CSV, Parquet, NPZ).")
    if len(data.rows) < MIN_READINGS:
        raise DataError(f"{source}: {len(data.rows)} readings, and at least {MIN_READINGS} are needed.")
    rows, labels = data.rows.astype(np.float32), data.labels
    if data.test_rows is not None:
        seen, seen_labels = rows, labels
        rows, labels = data.test_rows.astype(np.float32), data.test_labels
    else:
        split = int(len(rows) * TRAINING_SHARE)
        seen, seen_labels = rows[:split], None if labels is None else labels[:split]
        rows, labels = rows[split:], None if labels is None else labels[split:]
    training = folder / "sensor" / "train.csv"
    if seen_labels is None:
        write_csv(training, data.columns, seen)
    else:
        write_csv(training, (*data.columns, LABEL), np.column_stack([seen, seen_labels]).astype(np.float32))
    path = folder / "sensor" / "readings.csv"
    write_csv(path, data.columns, rows)
    return DevicePlan(
        device_id="sensor",
        modality=Modality.SERIES,
        bundle_name="sensor",
        training_data=training,
        stream=WindowStream(path, rows, labels),
        rate_per_s=max(len(rows) / (0.8 * seconds), 1.0),
        about=f"{len(rows)} readings from {source}",
        training={} if seen_labels is None else {"data": {"label_column": LABEL}},
    )


def _images(folder: Path) -> list[Path]:
    """Return all image files below a folder, ordered by name."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def _link(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(path.resolve())
