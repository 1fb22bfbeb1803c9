"""Clips cut from videos, split by use, and the way back from scores of clips to scores of frames."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.training.samples.split import MIN_TRAIN, Split
from cloud.training.samples.videos import END_SLACK_FRAMES, VideoData, VideoFile
from cloud.training.settings import VideoSettings
from shared import videos
from shared.bundle import InputSpec
from shared.calibration import MIN_CALIBRATION_SIZE
from shared.diffusion.training import Progress
from shared.errors import DataError
from shared.preprocessing.video import graph_frame
from shared.videos import clip_ends, clip_stride, frames_of

SIDE_STEP_PIXELS = 32  # sizes of the graph are multiples of it
TARGET_PIXELS = 224 * 224
MAX_ENLARGEMENT = 2.0  # enlarging small frames helps up to here; beyond it no detail is gained
MIN_VIDEOS_TO_HOLD_OUT = 4  # with fewer videos, the end of each is held out instead of whole ones
GAIN, GAMMA, TINT = (0.7, 1.35), (0.85, 1.2), (0.95, 1.05)  # ranges of a change of light


def split_clips(
    data: VideoData,
    settings: VideoSettings,
    generator: np.random.Generator,
    *,
    held_out_share: float = 0.3,
    progress: Progress | None = None,
) -> Split:
    """Choose, decode and split the clips of the videos.

    The label of a test clip is that of its last frame. Raises DataError if there are too few normal clips.
    """
    spec = clip_spec(data, settings)
    ends = {video.path: _normal_ends(video, settings) for video in (*data.normal, *data.held_out)}
    train, held_out = _by_use(data, ends, settings, held_out_share)
    train = _thinned(train, settings.max_clips)
    held_out = _thinned(held_out, settings.max_held_out)
    if _count(train) < MIN_TRAIN or _count(held_out) < MIN_CALIBRATION_SIZE:
        raise DataError(
            f"{data.origin}: {_count(train)} normal clips to train on and {_count(held_out)} to hold out, and "
            f"{MIN_TRAIN} and {MIN_CALIBRATION_SIZE} are needed: give longer videos, or a shorter "
            "video.frame_interval_s."
        )
    test = _thinned([(video, _labelled_ends(video, settings)) for video in data.test], settings.max_test)
    reader = _Reader(spec, _count(train) + _count(held_out) + _count(test), progress)
    clips, calibration = reader.read(train), reader.read(held_out)
    clips = np.concatenate([clips, relit(clips, round(settings.relit_share * len(clips)), generator)])
    labels = [video.labels[ends] for video, ends in test if video.labels is not None]
    if not labels or not np.concatenate(labels).any() or np.concatenate(labels).all():
        return Split(spec, clips, calibration, None, None, data.notes)
    return Split(spec, clips, calibration, reader.read(test), np.concatenate(labels), data.notes)


def clip_spec(data: VideoData, settings: VideoSettings) -> InputSpec:
    """Return the shape of the graph's clips: as set, else chosen from the videos.

    `window_length` is the number of frames.
    """
    info = data.normal[0].info
    height, width = choose_size(info.height, info.width)
    return InputSpec(
        image_height=settings.height or height,
        image_width=settings.width or width,
        window_length=settings.clip_frames,
        frame_interval_s=settings.frame_interval_s,
    )


def choose_size(height: int, width: int) -> tuple[int, int]:
    """Return height and width of the graph's frames for videos of this size.

    The frame has about TARGET_PIXELS and the aspect ratio of the videos; it is enlarged by MAX_ENLARGEMENT at most.
    """
    scale = min(math.sqrt(TARGET_PIXELS / (height * width)), MAX_ENLARGEMENT)

    def side(pixels: int) -> int:
        return max(SIDE_STEP_PIXELS, round(pixels * scale / SIDE_STEP_PIXELS) * SIDE_STEP_PIXELS)

    return side(height), side(width)


def frame_step(video: VideoFile, interval_s: float) -> int:
    """Return the number of video frames from one frame of a clip to the next."""
    return videos.frame_step(video.info.frames_per_second, interval_s)


def read_clips(video: VideoFile, ends: NDArray[np.intp], spec: InputSpec, step: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the clips (frames, height, width, 3) that end at the frames `ends`, which must ascend.

    The file is read once, and memory holds the frames of one clip's span. Raises DataError if the file ends before the
    last clip.
    """
    span = step * (spec.window_length - 1)
    wanted = {end - step * back for end in ends.tolist() for back in range(spec.window_length)}
    held: dict[int, NDArray[np.uint8]] = {}
    found = 0
    for position, pixels in frames_of(video.path, wanted):
        held[position] = graph_frame(pixels, spec)
        while found < len(ends) and ends[found] == position:
            yield np.stack([held[index] for index in range(position - span, position + 1, step)])
            found += 1
        held = {index: frame for index, frame in held.items() if index > position - span}
    if found < len(ends):
        raise DataError(
            f"{video.path}: ends before frame {int(ends[found])} of {video.info.frames}: convert it again, or remove "
            "it."
        )


def relit(clips: NDArray[np.uint8], count: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Return copies of `count` random clips in other light: with a random gain, gamma and tint.

    They teach the screener that switching on a lamp is normal.
    """
    out = np.empty((count, *clips.shape[1:]), dtype=np.uint8)
    levels = np.arange(256) / 255.0
    for row, source in enumerate(generator.integers(len(clips), size=count).tolist()):
        curve = levels ** generator.uniform(*GAMMA) * generator.uniform(*GAIN)
        for band, tint in enumerate(generator.uniform(*TINT, size=3)):
            table = np.clip(255.0 * curve * tint, 0, 255).astype(np.uint8)
            out[row, ..., band] = table[clips[source, ..., band]]
    return out


def frame_scores(scores: NDArray[Any], ends: NDArray[np.intp], span: int, frames: int) -> NDArray[np.float64]:
    """Return scores (frames,) of all frames of a video from scores (n,) of its clips.

    `ends`: (n,) last frame of each clip; `span`: frames from a clip's first to its last. A frame gets the mean score of
    the clips that cover it. Frames between clips are interpolated; frames before the first and after the last clip get
    the score of the nearest one. Raises DataError if there is no clip, or one lies outside the video.
    """
    if not len(ends) or len(scores) != len(ends) or ends.min() < 0 or ends.max() >= frames:
        raise DataError(
            f"{len(scores)} scores of clips do not fit the {len(ends)} clips of a video of {frames} frames."
        )
    total, cover = np.zeros(frames), np.zeros(frames)
    values = np.asarray(scores, dtype=np.float64)
    for back in range(span + 1):  # no cumulative sums: one huge score would round off all later ones
        frame = ends - back
        inside = frame >= 0
        np.add.at(total, frame[inside], values[inside])
        np.add.at(cover, frame[inside], 1.0)
    covered = cover > 0
    means = total[covered] / cover[covered]
    everywhere: NDArray[np.float64] = np.interp(np.arange(frames), np.flatnonzero(covered), means)
    return everywhere


Cut = tuple[VideoFile, NDArray[np.intp]]


class _Reader:
    """Reader of clips of one shape that reports the share done."""

    def __init__(self, spec: InputSpec, total: int, progress: Progress | None) -> None:
        self._spec, self._total, self._progress = spec, total, progress
        self._done = 0

    def read(self, cuts: Sequence[Cut]) -> NDArray[np.uint8]:
        """Return all clips of the cuts."""
        spec = self._spec
        shape = (_count(cuts), spec.window_length, spec.image_height, spec.image_width, 3)
        clips = np.empty(shape, dtype=np.uint8)
        filled = 0
        for video, ends in cuts:
            step = frame_step(video, spec.frame_interval_s)
            for clip in read_clips(video, ends, spec, step):
                clips[filled] = clip
                filled += 1
            self._done += len(ends)
            if self._progress is not None:
                self._progress(self._done / max(self._total, 1))
        return clips


def _by_use(
    data: VideoData, ends: dict[Any, NDArray[np.intp]], settings: VideoSettings, share: float
) -> tuple[list[Cut], list[Cut]]:
    """Split the normal clips into those to train on and those to hold out.

    Whole videos are held out, since neighbouring clips are near copies. With few videos, the last part of each is held
    out, with a gap of one clip's span.
    """
    cuts = [(video, ends[video.path]) for video in data.normal]
    if data.held_out:
        return cuts, [(video, ends[video.path]) for video in data.held_out]
    if len(cuts) >= MIN_VIDEOS_TO_HOLD_OUT:
        count = max(1, round(share * len(cuts)))
        apart = set(np.floor((np.arange(count) + 0.5) * len(cuts) / count).astype(int).tolist())
        return [cut for index, cut in enumerate(cuts) if index not in apart], [cuts[index] for index in sorted(apart)]
    train, held_out = [], []
    for video, found in cuts:
        boundary = round(len(found) * (1 - share))
        last = int(found[boundary - 1]) if boundary else -1
        span = frame_step(video, settings.frame_interval_s) * (settings.clip_frames - 1)
        train.append((video, found[:boundary]))
        held_out.append((video, found[boundary:][found[boundary:] - span > last]))
    return train, held_out


def _normal_ends(video: VideoFile, settings: VideoSettings) -> NDArray[np.intp]:
    """Return the ends of the clips without a frame labelled as an anomaly."""
    step = frame_step(video, settings.frame_interval_s)
    ends = clip_ends(video.info.frames - END_SLACK_FRAMES, step, settings.clip_frames, clip_stride(step))
    if video.labels is None:
        return ends
    before = np.concatenate([[0], np.cumsum(video.labels)])
    starts = ends - step * (settings.clip_frames - 1)
    last = len(video.labels)
    normal: NDArray[np.intp] = ends[before[np.minimum(ends + 1, last)] == before[np.minimum(starts, last)]]
    return normal


def _labelled_ends(video: VideoFile, settings: VideoSettings) -> NDArray[np.intp]:
    labelled = 0 if video.labels is None else len(video.labels)
    labelled = min(labelled, video.info.frames - END_SLACK_FRAMES)
    return clip_ends(labelled, frame_step(video, settings.frame_interval_s), settings.clip_frames, 1)


def _thinned(cuts: Sequence[Cut], max_clips: int) -> list[Cut]:
    """Return at most `max_clips` of the clips, evenly spread over all videos."""
    every = max(1, -(-_count(cuts) // max_clips))
    return [(video, ends[::every]) for video, ends in cuts]


def _count(cuts: Sequence[Cut]) -> int:
    return sum(len(ends) for _, ends in cuts)
