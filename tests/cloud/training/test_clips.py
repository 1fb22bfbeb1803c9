"""Clips of training videos, and their split."""

from pathlib import Path

import numpy as np
import pytest

from cloud.training.samples.clips import (
    choose_size,
    frame_scores,
    read_clips,
    relit,
    split_clips,
)
from cloud.training.samples.split import Split
from cloud.training.samples.videos import find_videos
from cloud.training.settings import VideoSettings
from shared.bundle import InputSpec
from shared.errors import DataError
from shared.videos import clip_ends
from tests.cloud.training.video_files import frames, write_labels, write_video


def split(folder: Path, **settings: object) -> Split:
    chosen = VideoSettings.model_validate({"height": 64, "width": 96, **settings})
    return split_clips(find_videos(folder), chosen, np.random.default_rng(0))


def test_a_clip_has_frames_at_the_configured_interval(tmp_path: Path) -> None:
    pictures = frames(30)
    pictures[:] = np.arange(30, dtype=np.uint8)[:, None, None, None] * 8
    write_video(tmp_path / "a.avi", pictures)
    video = find_videos(tmp_path).normal[0]
    spec = InputSpec(image_height=64, image_width=96, window_length=3)
    clips = np.stack(list(read_clips(video, clip_ends(30, step=5, clip_frames=3, stride=8), spec, step=5)))
    levels = clips.mean(axis=(2, 3, 4)) / 8
    np.testing.assert_allclose(levels, [[0, 5, 10], [8, 13, 18], [16, 21, 26]], atol=0.6)


def test_the_end_of_a_single_video_is_held_out(tmp_path: Path) -> None:
    pictures = frames(400)
    pictures[:] = (np.arange(400) / 2).astype(np.uint8)[:, None, None, None]
    write_video(tmp_path / "a.avi", pictures)
    found = split(tmp_path, relit_share=0)
    assert found.spec.window_length == 2
    assert found.train.shape[1:] == (2, 64, 96, 3)
    assert found.train[..., 1].max() < found.held_out[..., 1].min()  # no frame is in both sets
    assert len(found.held_out) == pytest.approx(0.3 * (len(found.train) + len(found.held_out)), rel=0.1)
    assert found.test is None


def test_whole_videos_are_held_out_if_there_are_several(tmp_path: Path) -> None:
    for index in range(6):
        pictures = frames(80)
        pictures[:] = 40 * index + 10
        write_video(tmp_path / f"{index}.avi", pictures)
    found = split(tmp_path, relit_share=0)
    hours = [set(np.round((part.mean(axis=(1, 2, 3, 4)) - 10) / 40).astype(int).tolist()) for part in
             (found.train, found.held_out)]  # fmt: skip
    assert hours[0] | hours[1] == set(range(6))
    assert not hours[0] & hours[1]
    assert len(hours[1]) == 2


def test_a_folder_validation_is_the_held_out_set(tmp_path: Path) -> None:
    write_video(tmp_path / "train" / "a.avi", frames(200))
    bright = frames(200)
    bright[:] = 250
    write_video(tmp_path / "validation" / "b.avi", bright)
    found = split(tmp_path, relit_share=0)
    assert found.held_out.min() > 240
    assert found.train.mean() < 200


def test_frames_labelled_anomalous_are_not_trained_on(tmp_path: Path) -> None:
    write_video(tmp_path / "train" / "a.avi", frames(400, box=range(100, 150)))
    write_labels(tmp_path / "train" / "a.csv", [int(100 <= index < 150) for index in range(400)])
    found = split(tmp_path, relit_share=0)
    redness = found.train[..., 0].astype(int) - found.train[..., 2]
    assert (redness > 100).sum() == 0


def test_labelled_videos_are_the_test_set(tmp_path: Path) -> None:
    write_video(tmp_path / "train" / "a.avi", frames(400))
    write_video(tmp_path / "test" / "b.avi", frames(60, box=range(20, 40)))
    write_labels(tmp_path / "test" / "b.csv", [int(20 <= index < 40) for index in range(60)])
    found = split(tmp_path)
    assert found.test is not None
    assert found.test_labels is not None
    shows_box = (found.test[:, -1, ..., 0].astype(int) - found.test[:, -1, ..., 2] > 100).any(axis=(1, 2))
    np.testing.assert_array_equal(found.test_labels, shows_box)


def test_too_little_video_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", frames(30))
    with pytest.raises(DataError, match="normal clips to train on"):
        split(tmp_path)


def test_the_number_of_clips_is_limited(tmp_path: Path) -> None:
    for index in range(4):
        write_video(tmp_path / f"{index}.avi", frames(300))
    found = split(tmp_path, max_clips=60, max_held_out=40, relit_share=0.5)
    assert 30 < len(found.train) <= 90
    assert len(found.held_out) <= 40


def test_a_truncated_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", frames(40))
    video = find_videos(tmp_path).normal[0]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.avi"):
        list(read_clips(video, np.array([38]), InputSpec(image_height=32, image_width=32, window_length=2), step=1))


def test_relit_clips_differ_only_in_light() -> None:
    clips = frames(8)[None].repeat(3, axis=0)
    out = relit(clips, 5, np.random.default_rng(0))
    assert out.shape == (5, 8, *clips.shape[2:])
    for row in out:
        assert abs(row.mean() - clips[0].mean()) > 1
        level = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(row[..., 0], clips[0, ..., 0], strict=True)]
        assert min(level) > 0.95
    assert relit(clips, 0, np.random.default_rng(0)).shape[0] == 0


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 128), (128, 256)), ((1080, 1920), (160, 288)), ((480, 640), (192, 256))]
)
def test_the_graph_keeps_the_aspect_ratio_of_the_camera(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert choose_size(*size) == expected


def test_frames_have_the_mean_of_the_clips_that_cover_them() -> None:
    scores = frame_scores(np.array([1.0, 3.0]), np.array([2, 3]), span=2, frames=6)
    np.testing.assert_allclose(scores, [1, 2, 2, 3, 3, 3])


def test_frames_between_clips_are_interpolated() -> None:
    scores = frame_scores(np.array([0.0, 4.0]), np.array([1, 7]), span=1, frames=9)
    np.testing.assert_allclose(scores, [0, 0, 0.8, 1.6, 2.4, 3.2, 4, 4, 4])


def test_scores_that_do_not_fit_the_video_are_refused() -> None:
    with pytest.raises(DataError, match="5 frames"):
        frame_scores(np.array([1.0]), np.array([5]), span=1, frames=5)
    with pytest.raises(DataError, match="do not fit"):
        frame_scores(np.array([]), np.array([], dtype=int), span=1, frames=5)
