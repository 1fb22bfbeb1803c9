"""Video files, decoded frame by frame: memory does not grow with their length. Pixels are (height, width, 3) RGB."""

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import DataError, MissingExtraError

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"})
DEFAULT_FRAMES_PER_SECOND = 25.0  # of files that do not say
MAX_FRAMES_PER_SECOND = 1000.0


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a file says of itself. `frames`: how many there are, by its header."""

    frames: int
    frames_per_second: float
    height: int
    width: int


def probe(path: Path) -> VideoInfo:
    """What the file says of itself; raises DataError if it is no readable video."""
    cv2 = _cv2()
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


def frames_of(path: Path, wanted: Iterable[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The wanted frames (counted from 0) in order, each with its position; ends early where the file does.

    Frames are read from the start on: seeking in compressed video lands on other frames than asked for.
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
    capture = _cv2().VideoCapture(str(path))
    if not capture.isOpened():
        capture.release()
        raise DataError(f"{path}: not a readable video. Convert it to MP4 (H.264), or remove it.")
    return capture


def _cv2() -> Any:
    """OpenCV, imported at first use: a device without a camera never pays for it."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # a damaged file is told of once, by us
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        import cv2
    except ImportError:
        raise MissingExtraError("Videos need OpenCV: pip install 'vedette[edge]' or 'vedette[cloud]'.") from None
    return cv2
