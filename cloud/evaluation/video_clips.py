"""Clips of test videos, and frame scores computed from clip scores."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.metrics import Labels
from cloud.training.samples.clips import frame_scores, frame_step, read_clips
from cloud.training.samples.videos import END_SLACK_FRAMES, VideoFile
from shared.bundle import InputSpec
from shared.errors import DataError
from shared.videos import clip_ends, clip_stride

CLIPS_PER_BLOCK = 32


@dataclass(frozen=True)
class VideoClips:
    """Clips of videos, half a frame interval apart; clips of a labelled video end with its labels.

    `ends`: index of the last frame of each clip, by video. `steps`: distance in video frames between consecutive frames
    of a clip, by video.
    """

    videos: tuple[VideoFile, ...]
    spec: InputSpec
    steps: tuple[int, ...]
    ends: tuple[NDArray[np.intp], ...]

    @classmethod
    def of(cls, videos: Sequence[VideoFile], spec: InputSpec) -> "VideoClips":
        """Return all clips of the videos for a graph with input `spec`; videos shorter than a clip are skipped.

        Raises DataError if there is no clip or `spec` lacks the frame interval.
        """
        if not spec.frame_interval_s:
            raise DataError("The bundle lacks the interval between the frames of a clip: retrain it.")
        usable = []
        for video in videos:
            step = frame_step(video, spec.frame_interval_s)
            ends = clip_ends(_frames(video), step, spec.window_length, clip_stride(step))
            if len(ends):
                usable.append((video, step, ends))
        if not usable:
            raise DataError("No video is as long as one clip of this bundle: give longer videos.")
        kept, steps, all_ends = zip(*usable, strict=True)
        return cls(kept, spec, steps, all_ends)

    def __len__(self) -> int:
        return sum(map(len, self.ends))

    @property
    def labels(self) -> Labels | None:
        """Label (clips,) of the last frame of each clip, or None if a video has no labels."""
        labels = [video.labels for video in self.videos if video.labels is not None]
        if len(labels) < len(self.videos):
            return None
        return np.concatenate([frames[ends] for frames, ends in zip(labels, self.ends, strict=True)])

    @property
    def frame_labels(self) -> Labels:
        """Labels (frames,) of all labelled frames."""
        return np.concatenate([np.zeros(0, np.bool_), *(v.labels for v in self.videos if v.labels is not None)])

    def blocks(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the clips (n, frames, height, width, 3) in blocks of CLIPS_PER_BLOCK."""
        for video, ends, step in zip(self.videos, self.ends, self.steps, strict=True):
            clips = read_clips(video, ends, self.spec, step)
            while block := list(islice(clips, CLIPS_PER_BLOCK)):
                yield np.stack(block)

    def frame_scores(self, scores: NDArray[np.float64], kept: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return scores (frames,) of the labelled frames from scores (n,) of the clips at positions `kept` (n,)."""
        owner = np.repeat(np.arange(len(self.ends)), [len(ends) for ends in self.ends])[kept]
        last = np.concatenate(self.ends)[kept]
        blocks = [np.zeros(0)]
        for index, (video, step) in enumerate(zip(self.videos, self.steps, strict=True)):
            if video.labels is not None:
                own, span = owner == index, step * (self.spec.window_length - 1)
                blocks.append(frame_scores(scores[own], last[own], span, len(video.labels)))
        return np.concatenate(blocks)


def _frames(video: VideoFile) -> int:
    readable = video.info.frames - END_SLACK_FRAMES
    return readable if video.labels is None else min(len(video.labels), readable)
