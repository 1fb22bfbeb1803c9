"""Device of the demo that sees the user's own video.

The video is cut in two files: the first part to train on, the second for the camera. Only frames that clips use are
kept, at about the size that the graph gets, so a long recording is quick to prepare.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.demo.streams import DevicePlan, VideoStream
from cloud.training.settings import VideoSettings
from shared.errors import DataError
from shared.images import resize
from shared.modality import Modality
from shared.videos import VideoInfo, clip_ends, clip_stride, frame_step, frames_of, probe, pyav

TRAINING_SHARE = 0.6
MAX_TRAINING_FRAMES = 600  # of those kept: five minutes at the longest interval
MIN_TRAINING_CLIPS = 80  # held out are 30 % of them, less those across the gap; 20 are needed
MIN_CLIPS = 10  # to screen
MAX_CLIPS_PER_S = 4.0  # what two cores screen beside the other devices
ENOUGH_S = 40
_CLIPS_TO_AIM_AT = 240
_INTERVAL_S = (0.2, 1.0)  # range of the seconds between the frames of a clip; a short video needs the lower end
_MAX_PIXELS = 448 * 448
_ENCODING = {"preset": "veryfast", "crf": "12"}


@dataclass(frozen=True, slots=True)
class _Cut:
    """Use of a video's frames: every `every`-th one, `training` of them to train on and then `seen` for the camera."""

    interval_s: float
    every: int
    frames_per_second: Fraction
    training: int
    seen: int

    def clips(self, frames: int) -> int:
        """Return the number of clips in a part of `frames` kept frames."""
        step = frame_step(float(self.frames_per_second), self.interval_s)
        return len(clip_ends(frames, step, VideoSettings().clip_frames, clip_stride(step)))


def video_plan(source: Path, folder: Path, seconds: float) -> DevicePlan:
    """Return a camera that trains on the first TRAINING_SHARE of the user's video and sees the rest.

    Raises DataError if `source` is no readable video, or too short.
    """
    if not source.is_file():
        raise DataError(f"{source}: no such file. --video takes a video file, such as MP4.")
    info = probe(source)
    cut = _choose_cut(info, seconds)
    _check_length(source, info, cut, cut.training, cut.seen)
    training, seen = folder / "camera" / "train" / "first.mp4", folder / "camera" / "rest.mp4"
    written = _write_parts(source, info, cut, training, seen)
    _check_length(source, info, cut, cut.training, written - cut.training)
    clips = cut.clips(written - cut.training)
    return DevicePlan(
        device_id="camera",
        modality=Modality.VIDEO,
        bundle_name="camera",
        training_data=folder / "camera",
        stream=VideoStream(seen, float(cut.frames_per_second)),
        rate_per_s=max(clips / (0.8 * seconds), 0.1),
        about=f"{clips} clips from {source}, after {float(cut.training / cut.frames_per_second):.0f} s to train on",
        training={"video": {"frame_interval_s": cut.interval_s}},
    )


def _choose_cut(info: VideoInfo, seconds: float) -> _Cut:
    training_s = TRAINING_SHARE * info.frames / info.frames_per_second
    interval_s = round(min(max(2 * training_s / _CLIPS_TO_AIM_AT, _INTERVAL_S[0]), _INTERVAL_S[1]), 2)
    every = clip_stride(frame_step(info.frames_per_second, interval_s))
    rate = Fraction(info.frames_per_second / every).limit_denominator(1000)
    kept = len(range(0, info.frames, every))
    training = min(math.floor(TRAINING_SHARE * kept), MAX_TRAINING_FRAMES)
    return _Cut(interval_s, every, rate, training, min(kept - training, round(0.8 * seconds * MAX_CLIPS_PER_S)))


def _check_length(source: Path, info: VideoInfo, cut: _Cut, training: int, seen: int) -> None:
    to_train, to_see = cut.clips(training), cut.clips(max(seen, 0))
    if to_train >= MIN_TRAINING_CLIPS and to_see >= MIN_CLIPS:
        return
    raise DataError(
        f"{source}: {info.frames} frames at {info.frames_per_second:.3g} per second give {to_train} clips to train on "
        f"and {to_see} to screen, and {MIN_TRAINING_CLIPS} and {MIN_CLIPS} are needed: give a longer, undamaged video; "
        f"{ENOUGH_S} s are enough at 10 frames per second."
    )


def _write_parts(source: Path, info: VideoInfo, cut: _Cut, training: Path, seen: Path) -> int:
    """Write both parts; return how many frames the file really had, which a damaged one has fewer of."""
    scale = min(1.0, math.sqrt(_MAX_PIXELS / (info.height * info.width)))
    height, width = (max(2, 2 * round(side * scale / 2)) for side in (info.height, info.width))
    count = 0
    with contextlib.ExitStack() as stack:
        parts = [stack.enter_context(_writer(path, cut, height, width)) for path in (training, seen)]
        for _, pixels in frames_of(source, range(0, (cut.training + cut.seen) * cut.every, cut.every)):
            parts[count >= cut.training].add(resize(pixels, height, width))
            count += 1
    return count


class _Writer:
    def __init__(self, container: Any, rate: Fraction, height: int, width: int) -> None:
        self._container = container
        self._stream = container.add_stream("libx264", rate=rate, options=_ENCODING)
        self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, "yuv420p"

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """Append a frame (height, width, 3)."""
        frame = pyav().VideoFrame.from_ndarray(pixels, format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def flush(self) -> None:
        """Write the frames that the encoder still holds."""
        self._container.mux(self._stream.encode(None))


@contextlib.contextmanager
def _writer(path: Path, cut: _Cut, height: int, width: int) -> Iterator[_Writer]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pyav().open(str(path), "w") as container:
        writer = _Writer(container, cut.frames_per_second, height, width)
        yield writer
        writer.flush()
