"""Video benchmark on tiny videos, and its baseline."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cloud.evaluation.evaluate import EvaluationRequest, evaluate_bundle
from cloud.evaluation.leaderboard import routing_names
from cloud.evaluation.video import score_video
from cloud.evaluation.video_baseline import PositionNeighbours
from cloud.evaluation.video_clips import VideoClips
from cloud.training import TrainingSettings
from cloud.training.encoders import fit_video_encoder
from cloud.training.samples.videos import find_videos
from shared.bundle import InputSpec
from shared.errors import DataError
from tests.cloud.training.video_bundle import train_on_videos, write_normal_videos
from tests.cloud.training.video_files import frames, write_labels, write_video

WALK = range(60, 90)


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of five normal videos and one in which a box moves through."""
    folder = tmp_path_factory.mktemp("camera")
    write_normal_videos(folder / "train")
    write_video(folder / "eval" / "x.avi", frames(150, box=WALK, seed=9))
    write_labels(folder / "eval" / "x_labels.csv", [int(index in WALK) for index in range(150)])
    return folder


@pytest.mark.usefixtures("worker_here")
def test_the_benchmark_finds_a_walk_through_the_room_by_every_method(
    camera: Path, tmp_path: Path, vedette: Callable[..., int]
) -> None:
    config, result = tmp_path / "quick.toml", tmp_path / "out.json"
    config.write_text(
        'effort = 0.1\nanalyzers = ["knn", "time_estimation"]\n'
        "[head]\nsteps = 200\nbatch_size = 128\nperturbed = 4000\n"
        "[video]\nheight = 64\nwidth = 96\nrelit_share = 0.1\nmax_clips = 60\nmax_held_out = 60\n"
        "[quantisation]\nimages = 10\n[tolerances]\nrank_correlation = 0.5\nlabel_agreement = 0.5\n"
    )
    options = ("--data", camera, "--config", config, "--work", tmp_path, "--json", result, "--seeds", "1")
    assert vedette("bench", "video", *options, "--output", tmp_path / "video.md") == 0
    summary = json.loads(result.read_text())
    figures, facts = summary["sets"]["camera0"], summary["facts"]["camera0"]
    assert facts["test_samples"] == 150
    assert facts["anomalies"] == len(WALK)
    assert {"fused", "screener_int8_openvino", "screener_int8_onnxruntime", "baseline_knn", *routing_names()} <= set(
        figures
    )
    methods = ("fused", "screener_fp32", "knn", "baseline_knn", "cloud_only")
    assert all(figures[name]["auroc"] > 0.85 for name in methods), {name: figures[name]["auroc"] for name in methods}
    assert "frame" in (tmp_path / "video.md").read_text()


def test_evaluate_measures_the_frames_of_videos(camera: Path, tmp_path: Path) -> None:
    trained, bundle = train_on_videos(tmp_path), tmp_path / "camera.vedette"
    bundle.write_bytes(trained.bundle.archive())
    request, key = EvaluationRequest(bundle, camera / "eval"), trained.key.public_key()
    result = evaluate_bundle(request, key, lambda stage, share: None)
    assert result["modality"] == "video"
    assert 0 < result["anomalies"] < result["samples"]
    assert result["methods"]["fused"]["frame_auroc"] > 0.85


SPEC = InputSpec(image_height=32, image_width=32, window_length=2, frame_interval_s=1.0)


def test_a_video_shorter_than_a_clip_is_skipped(tmp_path: Path) -> None:
    for name, count in (("long", 40), ("short", 4)):
        write_video(tmp_path / "test" / f"{name}.avi", frames(count))
        write_labels(tmp_path / "test" / f"{name}.csv", [0] * (count - 1) + [1])
    clips = VideoClips.of(find_videos(tmp_path, to_judge=True).test, SPEC)
    assert len(clips.frame_labels) == 40
    scores = clips.frame_scores(np.arange(len(clips), dtype=float), np.arange(len(clips)))
    assert len(scores) == 40
    assert sum(map(len, clips.blocks())) == len(clips)
    with pytest.raises(DataError, match="as long as one clip"):
        VideoClips.of([video for video in find_videos(tmp_path, to_judge=True).test if video.info.frames < 5], SPEC)


def test_a_bundle_without_a_frame_interval_is_refused(camera: Path) -> None:
    with pytest.raises(DataError, match="interval between the frames"):
        VideoClips.of(find_videos(camera).test, SPEC.model_copy(update={"frame_interval_s": 0.0}))


def test_some_unlabelled_videos_leave_the_clips_without_labels(camera: Path) -> None:
    data = find_videos(camera)
    clips = VideoClips.of([*data.test, data.normal[0]], SPEC)
    assert clips.labels is None
    assert len(clips.frame_labels) == 150


def test_videos_without_labels_are_reported(camera: Path, tmp_path: Path) -> None:
    (tmp_path / "train").symlink_to(camera / "train")
    with pytest.raises(DataError, match="has a table of labels"):
        score_video(tmp_path, TrainingSettings())


def test_the_baseline_compares_each_position_only_with_itself() -> None:
    torch.set_num_threads(1)
    left = frames(80, seed=0).reshape(40, 2, 64, 96, 3)
    left[:, :, 20:44, 4:28] = (240, 60, 30)  # a box that is always there
    encoder = fit_video_encoder(left, generator=torch.Generator().manual_seed(0), dims=(16, 8))[0]
    baseline = PositionNeighbours.fit(encoder, left)
    moved = np.ascontiguousarray(left[:5, :, :, ::-1])
    assert baseline.score(moved).min() > baseline.score(left[5:]).max()
