"""Folders of training videos."""

import os
from pathlib import Path

import numpy as np
import pytest

from cloud.training.samples.videos import find_videos, read_labels
from shared.errors import DataError
from shared.videos import frames_of, probe
from tests.cloud.training.video_files import frames, write_labels, write_video

REAL = Path(os.environ.get("VEDETTE_BENCH_DATA") or Path(__file__).parents[4] / "shared" / "data") / "cctv_upcam"


def test_a_split_folder_gives_normal_and_labelled_videos(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_video(tmp_path / "train" / f"{name}.mp4", frames(20))
    write_video(tmp_path / "eval" / "00.mp4", frames(20))
    write_video(tmp_path / "eval" / "unlabelled.mp4", frames(20))
    write_labels(tmp_path / "eval" / "00_labels_first_12_frames.csv", [0] * 8 + [1] * 4)
    (tmp_path / "train" / "notes.txt").write_text("no video")
    data = find_videos(tmp_path)
    assert [video.path.stem for video in data.normal] == ["a", "b"]
    assert [video.path.stem for video in data.test] == ["00"]
    labels = data.test[0].labels
    assert labels is not None
    assert labels.tolist() == [False] * 8 + [True] * 4
    info = data.normal[0].info
    assert (info.frames, info.frames_per_second, info.height, info.width) == (20, 5.0, 64, 96)


def test_unlabelled_videos_of_a_flat_folder_are_normal(tmp_path: Path) -> None:
    write_video(tmp_path / "day.avi", frames(10))
    write_video(tmp_path / "night.avi", frames(10))
    write_labels(tmp_path / "night.csv", [0, 1] * 5, header="label")
    data = find_videos(tmp_path)
    assert [video.path.stem for video in data.normal] == ["day"]
    assert [video.path.stem for video in data.test] == ["night"]


def test_unusable_data_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds neither videos"):
        find_videos(tmp_path)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(200))
    with pytest.raises(DataError, match=r"damaged\.mp4: not a readable video") as caught:
        find_videos(tmp_path)
    assert "\n" not in str(caught.value)
    damaged.unlink()
    write_video(tmp_path / "a.avi", frames(5))
    write_video(tmp_path / "b.avi", frames(5, size=(48, 96)))
    with pytest.raises(DataError, match=r"96 x 48 pixels, but a\.avi has 96 x 64"):
        find_videos(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        find_videos(tmp_path / "a.avi")


def test_a_folder_with_only_labelled_videos_cannot_be_trained_on(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", frames(5))
    write_labels(tmp_path / "a.csv", [0] * 5)
    with pytest.raises(DataError, match="folder train"):
        find_videos(tmp_path)


def test_two_label_files_of_one_video_are_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", frames(5))
    write_labels(tmp_path / "a.csv", [0] * 5)
    write_labels(tmp_path / "a_labels.csv", [1] * 5)
    with pytest.raises(DataError, match="both hold its labels"):
        find_videos(tmp_path)


@pytest.mark.parametrize(
    ("name", "labels", "message"),
    [
        ("a.csv", ["0"] * 7, "7 labels for a video of 10 frames"),
        ("a.csv", ["0"] * 11, "11 labels for a video of 10 frames"),
        ("a_labels_first_6_frames.csv", ["0"] * 5, "6 are labelled according"),
        ("a_labels_first_12_frames.csv", ["0"] * 12, "12 labels for a video of 10"),
        ("a.csv", ["0"] * 4 + ["maybe"] + ["0"] * 5, "label 5 is 'maybe'"),
        ("a.csv", ["0"] * 4 + ["nan"] + ["0"] * 5, "label 5 is 'nan'"),
        ("a.csv", [], "0 labels"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, name: str, labels: list[str], message: str) -> None:
    (tmp_path / name).write_text("\n".join(labels))
    with pytest.raises(DataError, match=message):
        read_labels(tmp_path / name, 10)


def test_every_number_except_zero_is_an_anomaly(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("anomaly\n0\n1\n2\n0.0\n\n\n")
    assert read_labels(tmp_path / "a.csv", 4).tolist() == [False, True, True, False]


def test_the_requested_frames_are_read_in_order_and_in_rgb(tmp_path: Path) -> None:
    pictures = frames(12, box=range(12))
    path = write_video(tmp_path / "a.avi", pictures)
    found = list(frames_of(path, [7, 2, 7, 11, 40]))
    assert [position for position, _ in found] == [2, 7, 11]  # the file ends before 40
    for position, pixels in found:
        assert np.abs(pixels.astype(int) - pictures[position]).mean() < 6
    assert list(frames_of(path, [])) == []
    assert probe(path).frames == 12


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is absent")
def test_the_videos_of_a_real_camera_are_found_with_their_labels() -> None:
    data = find_videos(REAL)
    assert len(data.normal) == 8
    labels = data.test[0].labels
    assert labels is not None
    assert len(labels) == 9000
    assert data.test[0].info.frames > 18_000


def test_labels_may_have_slightly_fewer_frames_than_the_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\n".join(["0"] * 9))
    assert len(read_labels(tmp_path / "a.csv", 10)) == 9
