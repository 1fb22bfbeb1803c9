"""Folders of images as people name them, files that are no images, and parts of one kind."""

from pathlib import Path

import numpy as np
import pytest

from cloud.training.modalities import load_training_data, training_modality
from cloud.training.samples.images import ImageData, find_images
from cloud.training.settings import DataSettings, TrainingSettings
from shared.errors import DataError
from shared.images import encode_png
from shared.modality import Modality
from tests.cases import case


def put(folder: Path, count: int, value: int | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (16, 16, 1), np.uint8)
        (folder / f"{index}.png").write_bytes(encode_png(pixels if value is None else np.full_like(pixels, value)))


@pytest.mark.parametrize("normal", ["good", "OK", "Normal", "ok", "GOOD"])
@pytest.mark.parametrize("defect", ["NG", "defect", "scratch"])
def test_normal_folders_have_many_names(tmp_path: Path, normal: str, defect: str) -> None:
    put(tmp_path / "Train" / normal, 4)
    put(tmp_path / "test" / normal, 2)
    put(tmp_path / "test" / defect, 3)
    data = find_images(tmp_path)
    assert len(data.good) == 4
    assert data.test_labels is not None
    assert sorted(data.test_labels.tolist()) == [False] * 2 + [True] * 3


def test_ok_and_ng_side_by_side(tmp_path: Path) -> None:
    put(tmp_path / "OK", 4)
    put(tmp_path / "NG", 3)
    data = find_images(tmp_path)
    assert [path.parent.name for path in data.good] == ["OK"] * 4
    assert [path.parent.name for path in data.test] == ["NG"] * 3
    judged = find_images(tmp_path, to_judge=True)
    assert judged.test_labels is not None
    assert judged.test_labels.tolist() == [True] * 3 + [False] * 4


def test_images_in_train_itself_are_normal_and_defects_there_are_named(tmp_path: Path) -> None:
    put(tmp_path / "flat" / "train", 4)
    assert len(find_images(tmp_path / "flat").good) == 4
    put(tmp_path / "both" / "train" / "good", 4)
    put(tmp_path / "both" / "train" / "NG", 2)
    data = find_images(tmp_path / "both")
    assert len(data.good) == 4
    assert any("not learned from" in note and "NG in train" in note for note in data.notes)


@pytest.mark.parametrize(("kind", "word"), [("scratch", "anomalous"), ("good", "normal")])
def test_a_test_part_of_one_kind_is_kept_and_noted(tmp_path: Path, kind: str, word: str) -> None:
    put(tmp_path / "train" / "good", 4)
    put(tmp_path / "test" / kind, 3)
    data = find_images(tmp_path)
    assert len(data.test) == 3
    assert any(f"the 3 test images are all {word}" in note for note in data.notes)


def test_the_folder_of_a_case_is_judged_without_test_good() -> None:
    data = find_images(case("10-test-folders"), to_judge=True)
    assert {path.parent.name for path in data.test} == {"scratch"}
    assert data.test_labels is not None
    assert data.test_labels.all()


def test_files_of_other_systems_are_passed_over_with_a_count(tmp_path: Path) -> None:
    put(tmp_path, 4)
    for name in ("._0.png", "Thumbs.db", ".DS_Store", "desktop.ini"):
        (tmp_path / name).write_bytes(b"\0")
    data = find_images(tmp_path)
    assert len(data.good) == 4
    assert any(note.endswith("because they are no images: 4") for note in data.notes)


def test_a_constant_image_is_refused_by_name_before_training(tmp_path: Path) -> None:
    put(tmp_path, 60)
    put(tmp_path / "covered", 1, value=7)
    (tmp_path / "covered" / "0.png").rename(tmp_path / "covered.png")

    def split(**data_settings: object) -> tuple[str, ...]:
        settings = TrainingSettings.model_validate({"data": data_settings, "image": {"height": 32, "width": 32}})
        data = load_training_data(tmp_path, Modality.IMAGE, DataSettings())
        assert isinstance(data, ImageData)
        modality = training_modality(Modality.IMAGE)
        return modality.split(data, settings, np.random.default_rng(0), None).notes

    with pytest.raises(DataError, match=r"covered\.png: every pixel has the value 7"):
        split()
    assert "1 unreadable or constant images were left out" in split(bad_rows="drop")
