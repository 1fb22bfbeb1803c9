"""The user's own video in the demo: both parts, their clips, and errors before anything is trained."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cloud.demo import own_video
from cloud.demo.commands import demo
from cloud.demo.layout import DemoFolder
from cloud.demo.own_video import MIN_CLIPS, video_plan
from cloud.demo.streams import VideoStream
from cloud.training.modalities import load_training_data, split_samples
from cloud.training.settings import TrainingSettings
from edge.settings import AgentSettings
from edge.settings.sources import CameraSettings
from edge.sources import open_source
from shared.bundle import InputSpec
from shared.calibration import MIN_CALIBRATION_SIZE
from shared.errors import DataError, SettingsError
from shared.modality import Modality
from shared.videos import probe
from tests.cloud.training.video_files import frames, write_video

SIZE = (48, 64)


def test_the_first_part_trains_and_the_camera_sees_clips_of_the_rest(tmp_path: Path) -> None:
    pictures = frames(600, box=range(500, 600), size=SIZE)
    source = write_video(tmp_path / "mine.mp4", pictures, frames_per_second=15.0)
    plan = video_plan(source, tmp_path / "demo", seconds=60)
    settings = TrainingSettings().changed(plan.training)
    split = split_samples(load_training_data(plan.training_data, Modality.VIDEO), settings)
    assert len(split.held_out) >= MIN_CALIBRATION_SIZE
    trained = np.concatenate([split.train, split.held_out]).astype(int)
    assert (trained[..., 0] - trained[..., 2]).max() < 100  # the orange box is in the second part only
    camera = CameraSettings(id="camera", kind="camera", url=str(plan.stream.path), bundle=Path("b"), batch_size=4)
    source_of_clips = open_source(camera, Modality.VIDEO, split.spec, threading.Event())
    seen = {
        origin: clip
        for batch in source_of_clips.batches()
        for origin, clip in zip(batch.origins, batch.values, strict=True)
    }
    assert len(seen) >= MIN_CLIPS
    assert f"{len(seen)} clips" in plan.about
    assert plan.rate_per_s * 48 == pytest.approx(len(seen))
    assert max((clip[..., 0].astype(int) - clip[..., 2]).max() for clip in map(np.asarray, seen.values())) > 150
    for origin, clip in seen.items():  # the reference is computed on the clips that the device saw
        reference = np.asarray(plan.stream.values(origin, split.spec), dtype=int)
        assert np.abs(reference - np.asarray(clip)).mean() < 2
        assert plan.stream.is_anomalous(origin, split.spec) is None


def test_clips_are_found_in_any_order(tmp_path: Path) -> None:
    path = write_video(tmp_path / "rest.avi", frames(40, size=SIZE), frames_per_second=5.0)
    spec = InputSpec(image_height=32, image_width=32, window_length=2, frame_interval_s=1.0)
    stream = VideoStream(path, 5.0)
    last = stream.values("rest.avi:39", spec)
    first = stream.values("rest.avi:5", spec)
    assert first.shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(first[1], VideoStream(path, 5.0).values("rest.avi:10", spec)[0])
    np.testing.assert_array_equal(last, stream.values("rest.avi:39", spec))


def test_a_large_video_is_stored_small_with_the_frames_that_clips_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_video, "_MAX_PIXELS", 32 * 32)
    source = write_video(tmp_path / "mine.avi", frames(600, size=(49, 65)), frames_per_second=20.0)
    plan = video_plan(source, tmp_path / "demo", seconds=60)
    info = probe(plan.stream.path)
    assert info.height * info.width < 34 * 34
    assert not info.height % 2
    assert not info.width % 2
    assert info.frames == 240 / 2  # clips are 0.2 s apart at 20 frames per second: every second frame


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("missing", "no such file. --video takes a video file"),
        ("text", "not a readable video"),
        ("short", "clips to train on and .* are needed: give a longer"),
        ("one frame", "1 frames at .* are needed: give a longer"),
        ("truncated", "undamaged video"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_at_once(tmp_path: Path, content: str, message: str) -> None:
    source = tmp_path / "mine.avi"
    if content == "text":
        source.write_text("no video\n" * 1000)
    elif content != "missing":
        count = {"short": 60, "one frame": 1, "truncated": 600}[content]
        write_video(source, frames(count, size=SIZE), frames_per_second=15.0)
    if content == "truncated":
        source.write_bytes(source.read_bytes()[: source.stat().st_size * 6 // 10])
    with pytest.raises(DataError, match=message) as raised:
        video_plan(source, tmp_path / "demo", seconds=60)
    assert "\n" not in str(raised.value)


def test_the_demo_reports_a_short_video_before_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VEDETTE_HOME", str(tmp_path))
    source = write_video(tmp_path / "mine.avi", frames(20, size=SIZE))
    with pytest.raises(DataError, match="clips to train on"):
        demo(json_path=tmp_path / "out.json", folder=tmp_path / "demo", video=source)
    assert json.loads((tmp_path / "out.json").read_text())["status"] == "failed"
    assert not list((tmp_path / "demo").rglob("*.log"))


def test_images_and_video_are_not_given_together(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="give one of them"):
        demo(images=tmp_path, video=tmp_path / "mine.mp4")


def test_the_camera_gets_the_video_as_its_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_video(tmp_path / "mine.mp4", frames(600, size=SIZE), frames_per_second=15.0)
    layout = DemoFolder(tmp_path / "demo")
    plan = video_plan(source, layout.data, seconds=60)
    bundle = SimpleNamespace(manifest=SimpleNamespace(input=InputSpec()))
    monkeypatch.setattr(DemoFolder, "open_bundle", lambda self, plan: bundle)
    layout.write_edge_config(plan, 60, None)
    (written,) = AgentSettings.load(layout.edge_config(plan)).sources
    assert isinstance(written, CameraSettings)
    assert written.url == str(plan.stream.path)
