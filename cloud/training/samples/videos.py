"""Video files on disk, with labels of their frames.

| layout | meaning |
|---|---|
| `train/*.mp4` | normal videos; clips with a frame that the video's label file marks as anomalous are left out |
| `validation/*.mp4` | optional: normal videos to calibrate on; without it, a part of `train` is held out |
| `test/*.mp4` or `eval/*.mp4` | optional: labelled videos to measure on |
| a flat folder | unlabelled videos are normal, labelled ones are to measure on |

The labels of `NAME.mp4` are in `NAME.csv` or `NAME_labels.csv`: one line per frame with one number, 0 for normal, after
an optional header. The file is called `NAME_labels_first_9000_frames.csv` if only the first 9000 frames are labelled.

Each problem is one DataError that names the fault, the place and the remedy.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.errors import DataError
from shared.modality import Modality
from shared.videos import VIDEO_SUFFIXES, VideoInfo, probe

TEST_FOLDERS = ("test", "eval")
_LABELLED_FRAMES = re.compile(r"first_(\d+)_frames$")
END_SLACK_FRAMES = 2  # headers often count a frame or two more than the file holds


@dataclass(frozen=True, slots=True)
class VideoFile:
    """One video file.

    `labels`: (labelled frames,) bool of the first frames, true for anomalies; None without labels.
    """

    path: Path
    info: VideoInfo
    labels: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class VideoData:
    """Normal videos, normal ones to calibrate on, and labelled ones to measure on.

    The last two may be empty.
    """

    origin: str
    normal: tuple[VideoFile, ...]
    held_out: tuple[VideoFile, ...] = ()
    test: tuple[VideoFile, ...] = ()
    notes: tuple[str, ...] = ()
    modality: Modality = Modality.VIDEO


def find_videos(path: Path, *, to_judge: bool = False) -> VideoData:
    """Find the videos of a folder and open each once. Raises DataError for a file that cannot be used.

    `to_judge`: the videos are for scoring, so none of them need be normal.
    """
    if not path.is_dir():
        raise DataError(f"{path}: not a folder; video data is a folder of video files, or one with train in it.")
    folder = path / "train"
    if not folder.is_dir() and not (to_judge and _labelled(path)):
        found = _videos_in(path)
        if not found:
            raise DataError(f"{path}: holds neither videos ({' '.join(sorted(VIDEO_SUFFIXES))}) nor a folder train.")
        data = VideoData(
            str(path),
            normal=tuple(video for video in found if video.labels is None),
            test=tuple(video for video in found if video.labels is not None),
        )
        if not data.normal and not to_judge:
            raise DataError(
                f"{path}: every video has labels, and training on a flat folder needs videos without: put the normal "
                "ones into a folder train."
            )
    else:
        data = VideoData(str(path), _videos_in(folder), _videos_in(path / "validation"), _labelled(path))
        if not data.normal and not (to_judge and data.test):
            raise DataError(f"{folder}: holds no videos ({' '.join(sorted(VIDEO_SUFFIXES))}).")
    _check_sizes([*data.normal, *data.held_out, *data.test])
    return data


def read_labels(path: Path, frames: int) -> NDArray[np.bool_]:
    """Return the labels (labelled frames,) of a video of `frames` frames.

    Raises DataError if the file is not a label file of this video.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from None
    while lines and not lines[-1]:
        lines.pop()
    if lines and _number(lines[0]) is None:
        lines = lines[1:]  # a header
    values = [_number(line) for line in lines]
    if None in values:
        position = values.index(None)
        raise DataError(f"{path}: label {position + 1} is {lines[position]!r}; each line must be a number, 0 or 1.")
    labels = np.array([value != 0 for value in values], dtype=np.bool_)
    announced = _LABELLED_FRAMES.search(path.stem)
    expected = int(announced.group(1)) if announced else frames
    slack = 0 if announced else END_SLACK_FRAMES
    if not expected - slack <= len(labels) <= expected or expected > frames:
        raise DataError(
            f"{path}: {len(labels)} labels for a video of {frames} frames{_of_which(announced, expected)}; give one "
            "per frame, or name the file ..._labels_first_N_frames.csv if only the first N are labelled."
        )
    return labels


def _of_which(announced: re.Match[str] | None, expected: int) -> str:
    return f", of which {expected} are labelled according to the file's name" if announced else ""


def _labelled(path: Path) -> tuple[VideoFile, ...]:
    """Return the labelled videos of the test folders; unlabelled ones are skipped."""
    found = [video for name in TEST_FOLDERS for video in _videos_in(path / name)]
    return tuple(video for video in found if video.labels is not None)


def _videos_in(folder: Path) -> tuple[VideoFile, ...]:
    if not folder.is_dir():
        return ()
    entries = sorted(folder.iterdir())
    files = [entry for entry in entries if entry.suffix.lower() in VIDEO_SUFFIXES and entry.is_file()]
    tables = [entry for entry in entries if entry.suffix.lower() == ".csv"]
    return tuple(_open(file, _labels_of(file, tables)) for file in files)


def _open(path: Path, labels: Path | None) -> VideoFile:
    info = probe(path)
    return VideoFile(path, info, None if labels is None else read_labels(labels, info.frames))


def _labels_of(video: Path, tables: Sequence[Path]) -> Path | None:
    """Return the label file of a video; raise DataError if there are two."""
    stem = re.escape(video.stem)
    found = [table for table in tables if re.fullmatch(rf"{stem}([_.]labels?([_.]first_\d+_frames)?)?", table.stem)]
    if len(found) > 1:
        raise DataError(f"{video}: {found[0].name} and {found[1].name} both hold its labels; remove one.")
    return found[0] if found else None


def _check_sizes(videos: Sequence[VideoFile]) -> None:
    """Raise DataError unless all frames have one size: else a position is not the same place in each."""
    first = videos[0]
    for video in videos:
        if (video.info.height, video.info.width) != (first.info.height, first.info.width):
            raise DataError(
                f"{video.path}: {video.info.width} x {video.info.height} pixels, but {first.path.name} has "
                f"{first.info.width} x {first.info.height}: train one bundle per camera."
            )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None
