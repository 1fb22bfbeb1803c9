"""Video files, decoded frame by frame so that memory does not grow with their length, and the clips cut from them.

Pixels are (height, width, 3) uint8 in RGB.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import DataError, MissingExtraError
from shared.images import opencv

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"})
DEFAULT_FRAMES_PER_SECOND = 25.0  # for files without a frame rate
MAX_FRAMES_PER_SECOND = 1000.0


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Facts from the header of a video file. `frames`: number of frames."""

    frames: int
    frames_per_second: float
    height: int
    width: int


def probe(path: Path) -> VideoInfo:
    """Return the facts in a file's header; raises DataError if it is not a readable video."""
    cv2 = opencv()
    capture = _open(path)
    try:
        readable = capture.grab()
        count, rate, height, width = (
            capture.get(key)
            for key in (
                cv2.CAP_PROP_FRAME_COUNT,
                cv2.CAP_PROP_FPS,
                cv2.CAP_PROP_FRAME_HEIGHT,
                cv2.CAP_PROP_FRAME_WIDTH,
            )
        )
    finally:
        capture.release()
    if not readable or not math.isfinite(count) or count < 1 or min(height, width) < 1:
        raise DataError(f"{path}: holds no readable frame. Convert it to MP4 (H.264), or remove it.")
    if not math.isfinite(rate) or not 0 < rate <= MAX_FRAMES_PER_SECOND:
        rate = DEFAULT_FRAMES_PER_SECOND
    return VideoInfo(int(count), float(rate), int(height), int(width))


def frame_step(frames_per_second: float, interval_s: float) -> int:
    """Return how many frames lie from one frame of a clip to the next, at least 1."""
    return max(1, round(frames_per_second * interval_s))


def clip_stride(step: int) -> int:
    """Return how many frames lie from the end of one clip to the end of the next: half of a clip's frame step."""
    return max(1, step // 2)


def clip_ends(frames: int, step: int, clip_frames: int, stride: int) -> NDArray[np.intp]:
    """Return the last frame of each clip of a video, `stride` frames apart, as many as fit."""
    return np.arange(step * (clip_frames - 1), frames, stride, dtype=np.intp)


def frames_of(path: Path, wanted: Iterable[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield the wanted frames (counted from 0) in order, each with its position, as far as the file goes.

    Frames are read from the start: seeking in compressed video gives other frames than asked for.
    Raises DataError if the file cannot be opened.
    """
    positions = sorted(set(wanted))
    if not positions:
        return
    capture = _open(path)
    try:
        following = iter(positions)
        position = next(following)
        for index in range(positions[-1] + 1):
            if not capture.grab():
                return
            if index != position:
                continue
            decoded, pixels = capture.retrieve()
            if not decoded or pixels is None:
                return
            yield index, np.ascontiguousarray(pixels[..., ::-1])
            position = next(following, -1)
    finally:
        capture.release()


def _open(path: Path) -> Any:
    capture = opencv().VideoCapture(str(path))
    if not capture.isOpened():
        capture.release()
        raise DataError(f"{path}: not a readable video. Convert it to MP4 (H.264), or remove it.")
    return capture


def pyav() -> Any:
    """Return PyAV, imported at first use: a device without a camera does not load it.

    Raises MissingExtraError if it is not installed.
    """
    try:
        import av
    except ImportError:
        raise MissingExtraError(
            "Cameras and videos need PyAV: pip install 'vedette[edge]' or 'vedette[cloud]'."
        ) from None
    av.logging.set_level(av.logging.PANIC)  # Vedette reports what matters itself, once
    return av
