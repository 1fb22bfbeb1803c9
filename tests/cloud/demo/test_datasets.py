"""The demo's data is real, its splits are disjoint, and labels are found by origin."""

from pathlib import Path

import numpy as np
import pytest

from cloud.demo import datasets
from cloud.demo.own_data import MIN_IMAGES, images_plan, series_plan
from cloud.demo.streams import ImageStream, TableStream, WindowStream
from cloud.training.modalities import load_training_data, split_samples
from cloud.training.settings import TrainingSettings
from shared.bundle import InputSpec
from shared.errors import DataError
from shared.images import encode_png
from shared.modality import Modality

SPEC = InputSpec()


def test_shuttle_devices_share_no_row_with_each_other_or_with_training(tmp_path: Path) -> None:
    first, second = datasets.shuttle_plans(tmp_path, seconds=30)
    assert isinstance(first.stream, TableStream)
    assert isinstance(second.stream, TableStream)
    _, table = datasets._read_package_csv("river", "datasets/shuttle.csv.gz")
    training = np.loadtxt(first.training_data, delimiter=",", skiprows=1)
    assert len(training) == datasets.SHUTTLE_TRAINING_ROWS
    assert first.training_data == second.training_data
    positions = {}
    for row_number, row in enumerate(table[:, :-1]):
        positions.setdefault(row.tobytes(), []).append(row_number)
    seen_twice = {key for key, rows in positions.items() if len(rows) > 1}
    parts = [training.astype(np.float32), first.stream.rows, second.stream.rows]
    keys = [{row.tobytes() for row in part} - seen_twice for part in parts]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]


def test_a_row_and_its_label_are_found_by_origin(tmp_path: Path) -> None:
    plan = datasets.shuttle_plans(tmp_path, seconds=30)[0]
    assert isinstance(plan.stream, TableStream)
    assert plan.stream.labels is not None
    written = np.loadtxt(plan.stream.path, delimiter=",", skiprows=1, dtype=np.float32)
    row = int(np.flatnonzero(plan.stream.labels)[0])
    np.testing.assert_array_equal(plan.stream.values(f"readings.csv:{row + 1}", SPEC), written[row])
    assert plan.stream.is_anomalous(f"readings.csv:{row + 1}", SPEC) is True
    assert 0.02 < plan.stream.labels.mean() < 0.2


def test_the_pressure_stream_holds_the_one_anomaly_after_the_training_part(tmp_path: Path) -> None:
    plan = datasets.artery_plan(tmp_path, seconds=60)
    assert isinstance(plan.stream, WindowStream)
    assert plan.stream.labels is not None
    spec = InputSpec(channels=("pressure",), window_length=64, window_stride=4)
    first = int(np.flatnonzero(plan.stream.labels)[0])
    assert plan.stream.is_anomalous(f"readings.csv:{first - 62}", spec) is True
    assert plan.stream.is_anomalous(f"readings.csv:{first - 63}", spec) is False
    assert plan.stream.values(f"readings.csv:{first + 1}", spec).shape == (64, 1)


def test_the_camera_sees_composited_defects_that_are_known(tmp_path: Path) -> None:
    plan = datasets.camera_plan(tmp_path, seconds=30)
    assert isinstance(plan.stream, ImageStream)
    assert plan.stream.anomalous
    assert len(plan.stream.anomalous) < len(list(plan.stream.path.iterdir())) / 4
    defect = min(plan.stream.anomalous)
    assert plan.stream.is_anomalous(defect, SPEC) is True
    assert plan.stream.values(defect, SPEC).shape == (datasets.CROP_PIXELS, datasets.CROP_PIXELS, 1)


def write_images(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        (folder / f"{index}.png").write_bytes(encode_png(pixels))


def test_own_images_in_a_flat_folder_are_split(tmp_path: Path) -> None:
    write_images(tmp_path / "mine", 50)
    plan = images_plan(tmp_path / "mine", tmp_path / "demo", seconds=30)
    assert len(list((plan.training_data / "train" / "good").iterdir())) == MIN_IMAGES
    assert len(list(plan.stream.path.iterdir())) == 50 - MIN_IMAGES
    assert plan.stream.is_anomalous(next(plan.stream.path.iterdir()).name, SPEC) is False  # good, as its owner says


def test_enough_own_images_are_taken_to_train_on(tmp_path: Path) -> None:
    write_images(tmp_path / "mine", 45)
    plan = images_plan(tmp_path / "mine", tmp_path / "demo", seconds=30)
    split = split_samples(load_training_data(plan.training_data, Modality.IMAGE), TrainingSettings())
    assert len(split.train) + len(split.held_out) == MIN_IMAGES


def test_own_images_that_are_set_apart_calibrate(tmp_path: Path) -> None:
    write_images(tmp_path / "mine" / "train" / "good", 20)
    write_images(tmp_path / "mine" / "validation" / "good", 21)
    write_images(tmp_path / "mine" / "test" / "good", 5)
    plan = images_plan(tmp_path / "mine", tmp_path / "demo", seconds=30)
    split = split_samples(load_training_data(plan.training_data, Modality.IMAGE), TrainingSettings())
    assert (len(split.train), len(split.held_out)) == (20, 21)


def test_own_images_with_defects_are_labelled(tmp_path: Path) -> None:
    write_images(tmp_path / "mine" / "train" / "good", MIN_IMAGES)
    write_images(tmp_path / "mine" / "test" / "good", 5)
    write_images(tmp_path / "mine" / "test" / "scratch", 5)
    plan = images_plan(tmp_path / "mine", tmp_path / "demo", seconds=30)
    labels = {path.name: plan.stream.is_anomalous(path.name, SPEC) for path in plan.stream.path.iterdir()}
    assert sum(label is True for label in labels.values()) == 5
    assert all(label == ("scratch" in name) for name, label in labels.items())


def test_too_few_own_images_are_named(tmp_path: Path) -> None:
    write_images(tmp_path / "mine", 4)
    with pytest.raises(DataError, match="4 good images to train on; at least 40"):
        images_plan(tmp_path / "mine", tmp_path / "demo", seconds=30)


def test_own_series_is_split_and_its_labelled_part_not_trained_on(tmp_path: Path) -> None:
    values = np.sin(np.arange(1000) / 10)
    labels = np.zeros(1000, dtype=int)
    labels[100:110] = labels[900:905] = 1
    lines = ["time,value,label", *(f"{i},{v:.5f},{y}" for i, (v, y) in enumerate(zip(values, labels, strict=True)))]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    plan = series_plan(tmp_path / "mine.csv", tmp_path / "demo", seconds=30)
    settings = TrainingSettings().changed({**plan.training, "series": {"window_length": 16}})
    trained = split_samples(load_training_data(plan.training_data, Modality.SERIES, settings.data), settings)
    assert trained.spec.channels == ("value",)
    # No window holds a marked reading or spans the gap they leave: the first 413 of 590 train, in runs of 100 and 313.
    assert len(trained.train) == (100 - 15) + (313 - 15)
    assert isinstance(plan.stream, WindowStream)
    assert plan.stream.labels is not None
    assert plan.stream.rows.shape == (400, 1)
    assert plan.stream.labels.sum() == 5
