"""Clips cut on a device are those that training cuts, and a live stream gives clips by its clock."""

import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud.training.samples.clips import frame_step, read_clips
from cloud.training.samples.videos import find_videos
from edge.settings.sources import CameraSettings
from edge.sources import open_source
from edge.sources.clips import ClipSampler
from shared.bundle import InputSpec
from shared.errors import BundleMismatchError, DataError
from shared.modality import Modality
from shared.videos import clip_ends, clip_stride, frames_of
from tests.cases import case
from tests.cloud.training.video_files import frames, write_video

SPEC = InputSpec(image_height=32, image_width=64, window_length=3, frame_interval_s=1.0)


def settings_of(url: Path | str, **more: Any) -> CameraSettings:
    return CameraSettings(id="door", kind="camera", url=str(url), bundle=Path("b"), **more)


def clips_of(path: Path, spec: InputSpec = SPEC, **more: Any) -> tuple[list[np.ndarray], list[int]]:
    source = open_source(settings_of(path, **more), Modality.VIDEO, spec, threading.Event())
    batches = list(source.batches())
    assert all(batch.modality is Modality.VIDEO for batch in batches)
    numbers = [int(origin.rpartition(":")[2]) for batch in batches for origin in batch.origins]
    return [clip for batch in batches for clip in batch.values], numbers


@pytest.mark.parametrize(("rate", "interval_s", "count"), [(5.0, 1.0, 3), (5.0, 0.2, 2), (10.0, 0.7, 4)])
def test_a_file_gives_the_clips_that_training_cuts(tmp_path: Path, rate: float, interval_s: float, count: int) -> None:
    path = write_video(tmp_path / "a.avi", frames(60, box=range(10, 50)), rate)
    spec = SPEC.model_copy(update={"frame_interval_s": interval_s, "window_length": count})
    (video,) = find_videos(tmp_path).normal
    step = frame_step(video, interval_s)
    ends = clip_ends(60, step, count, clip_stride(step))
    trained = list(read_clips(video, ends, spec, step))

    clips, numbers = clips_of(path, spec)

    assert numbers == ends.tolist()
    for clip, expected in zip(clips, trained, strict=True):
        assert clip.shape == (count, 32, 64, 3)
        assert np.abs(clip.astype(int) - expected).mean() < 2  # two decoders round colours differently


def test_stride_chooses_among_the_clips_and_the_motion_gate_goes_by_the_last_frame(tmp_path: Path) -> None:
    pictures = frames(100, box=range(60, 80), seed=1)
    path = write_video(tmp_path / "a.avi", pictures, 5.0)
    _, every = clips_of(path)
    _, second = clips_of(path, frame_stride=2)
    assert second == every[::2]
    _, moving = clips_of(path, motion_share=0.02, still_after_s=1000)
    assert moving[0] == every[0]
    assert set(moving[1:]) <= set(range(58, 84))


@pytest.mark.parametrize("count", [1, 10])
@pytest.mark.parametrize("loop", [False, True])
def test_a_video_shorter_than_a_clip_is_a_clear_error(tmp_path: Path, count: int, loop: bool) -> None:
    path = write_video(tmp_path / "a.avi", frames(count), 5.0)
    with pytest.raises(DataError, match=rf"a\.avi: holds {count} frames, and a sample needs 11"):
        clips_of(path, loop=loop)


def test_a_truncated_video_gives_the_clips_before_the_cut(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", frames(60), 5.0)
    _, every = clips_of(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    _, found = clips_of(path)
    assert 5 < len(found) < len(every)
    assert found == every[: len(found)]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_rotated_video_is_turned_as_in_training(tmp_path: Path, degrees: int) -> None:
    path = turned(write_video(tmp_path / "a.mp4", frames(30, box=range(5, 25)), 5.0), degrees)
    (video,) = find_videos(tmp_path).normal
    assert (video.info.height > video.info.width) == (degrees != 180)
    step = frame_step(video, SPEC.frame_interval_s)
    ends = clip_ends(30, step, SPEC.window_length, clip_stride(step))
    trained = list(read_clips(video, ends, SPEC, step))
    clips, _ = clips_of(path)
    for clip, expected in zip(clips, trained, strict=True):
        assert np.abs(clip.astype(int) - expected).mean() < 2


def test_the_rotated_video_of_the_cases_is_turned_as_in_training() -> None:
    path = case("08-rotated-video") / "belt_rot180.mp4"
    trained = dict(frames_of(path, [0, 40, 99]))
    source = open_source(
        settings_of(path), Modality.IMAGE, InputSpec(image_height=96, image_width=160), threading.Event()
    )
    seen = [pixels for batch in source.batches() for pixels in batch.values]
    for number, pixels in trained.items():
        assert np.abs(seen[number].astype(int) - pixels).mean() < 2
        assert np.abs(seen[number].astype(int) - np.rot90(pixels, 2)).mean() > 20


def turned(path: Path, degrees: int) -> Path:
    """Change the display matrix in the track header (ISO/IEC 14496-12, 8.3.2) of an MP4 file."""
    one, last = 0x10000, 1 << 30
    a, b = {90: (0, one), 180: (-one, 0), 270: (0, -one)}[degrees]
    upright = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, last)
    data = path.read_bytes()
    start = data.index(upright, data.index(b"tkhd"))
    path.write_bytes(data[:start] + struct.pack(">9i", a, b, 0, -b, a, 0, 0, 0, last) + data[start + len(upright) :])
    return path


def test_a_looped_file_cuts_no_clip_across_its_end(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", frames(20), 5.0)
    source = open_source(settings_of(path, loop=True), Modality.VIDEO, SPEC, threading.Event())
    numbers: list[int] = []
    for batch in source.batches():
        numbers += [int(origin.rpartition(":")[2]) for origin in batch.origins]
        if len(numbers) > 12:
            break
    once = clip_ends(20, 5, 3, 2).tolist()
    assert numbers[: 2 * len(once)] == once * 2


def live(rate_per_s: float, seconds: float, spec: InputSpec = SPEC, gap: tuple[float, float] = (-1, -1)) -> list[Any]:
    """Return time and clip of a live stream whose frames' brightness is ten times their time."""
    sampler, found = ClipSampler(settings_of("rtsp://camera"), spec), []
    for number in range(round(rate_per_s * seconds)):
        at_s = 1000.0 + number / rate_per_s
        if gap[0] <= at_s - 1000 < gap[1]:
            continue
        pixels = np.full((48, 64, 3), round(10 * (at_s - 1000)), np.uint8)
        clip = sampler.add(pixels, number, at_s, is_due=True)
        if clip is not None:
            found.append((at_s - 1000, clip))
    return found


@pytest.mark.parametrize("rate_per_s", [25.0, 7.0, 3.0, 1.0])
def test_frames_of_a_live_clip_lie_an_interval_apart(rate_per_s: float) -> None:
    found = live(rate_per_s, 12)
    apart = np.diff([at_s for at_s, _ in found])
    assert len(found) >= 9
    assert apart.max() <= max(0.5, 1 / rate_per_s) + 1 / rate_per_s
    for at_s, clip in found:
        levels = clip.mean(axis=(1, 2, 3)) / 10
        np.testing.assert_allclose(levels, [at_s - 2, at_s - 1, at_s], atol=0.5 + 0.06)
        assert levels[-1] == pytest.approx(at_s, abs=0.06)


def test_a_gap_in_a_live_stream_lies_within_no_clip() -> None:
    for at_s, clip in live(25.0, 14, gap=(5, 8)):
        assert at_s < 5 or at_s >= 9.5
        assert np.diff(clip.mean(axis=(1, 2, 3))).max() < 16


def test_few_frames_are_held_however_fast_the_camera_is() -> None:
    sampler = ClipSampler(settings_of("rtsp://camera"), SPEC.model_copy(update={"window_length": 16}))
    for number in range(3000):
        sampler.add(np.zeros((32, 64, 3), np.uint8), number, number / 100, is_due=True)
    assert len(sampler._held) <= 2 * 16 + 1


def test_a_folder_of_images_is_not_for_clips(tmp_path: Path) -> None:
    from edge.settings.sources import ImageFolderSettings

    folder = ImageFolderSettings(id="door", kind="images", path=tmp_path, bundle=Path("b"))
    with pytest.raises(BundleMismatchError, match="video"):
        open_source(folder, Modality.VIDEO, SPEC, threading.Event())
