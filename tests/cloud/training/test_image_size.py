"""Tests of the input size of an image graph, from the settings or the normal images."""

from pathlib import Path

import numpy as np
import pytest

from cloud.training.modalities import load_training_data, split_samples
from cloud.training.settings import DataSettings, TrainingSettings
from shared.errors import DataError
from shared.images import encode_png
from shared.modality import Modality


def write(folder: Path, count: int, height: int, width: int) -> None:
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    for index in range(count):
        pixels = generator.integers(0, 256, (height, width, 1)).astype(np.uint8)
        (folder / f"{height}-{index:03d}.png").write_bytes(encode_png(pixels))


def size(folder: Path, **image: int) -> tuple[int, int]:
    settings = TrainingSettings.model_validate({"image": image, "data": {"bad_rows": "drop"}})
    split = split_samples(load_training_data(folder, Modality.IMAGE), settings)
    assert split.train.shape[1:] == (split.spec.image_height, split.spec.image_width, 3)
    return split.spec.image_height, split.spec.image_width


def test_the_most_frequent_image_size_is_used(tmp_path: Path) -> None:
    write(tmp_path, 40, 160, 208)
    write(tmp_path, 5, 400, 400)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no image")
    assert size(tmp_path) == (160, 208)
    assert size(tmp_path, height=64, width=96) == (64, 96)


def test_large_images_shrink_to_the_pixel_limit(tmp_path: Path) -> None:
    write(tmp_path, 40, 300, 600)
    height, width = size(tmp_path, max_pixels=128 * 128)
    assert height * width < 1.1 * 128 * 128
    assert 1.8 < width / height < 2.2


def test_a_folder_of_broken_images_is_refused(tmp_path: Path) -> None:
    for index in range(50):
        (tmp_path / f"{index}.png").write_bytes(b"\x89PNG no image")
    data = load_training_data(tmp_path, Modality.IMAGE)
    with pytest.raises(DataError, match="give images"):
        split_samples(data, TrainingSettings(data=DataSettings(bad_rows="drop")))
