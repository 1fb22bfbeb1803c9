"""Samples to score, read from tables, folders of images and videos in blocks of bounded size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.api.scores import InputSample
from cloud.api.times import times_of
from cloud.evaluation.video_clips import CLIPS_PER_BLOCK, VideoClips
from cloud.modalities import cloud_modality
from cloud.training.data import read_table_data
from cloud.training.samples.clips import read_clips
from cloud.training.samples.images import read_image
from cloud.training.samples.videos import VideoFile
from cloud.training.settings import DataSettings
from shared.bundle import InputSpec
from shared.errors import DataError
from shared.images import IMAGE_SUFFIXES, PixelRange
from shared.modalities import sample_type
from shared.modality import Modality
from shared.tables.settings import TableSettings
from shared.videos import VIDEO_SUFFIXES, probe

ROWS_PER_BLOCK, IMAGES_PER_BLOCK = 2048, 16


@dataclass(frozen=True)
class ScoreInput:
    """Samples to score. `count`: number of samples, also of those that cannot be read; `blocks` may be read once."""

    count: int
    blocks: Iterator[list[InputSample]]


@dataclass(frozen=True)
class TableOptions:
    """Format of a table and its special columns; empty: detected."""

    label_column: str = ""
    time_column: str = ""
    table: TableSettings = field(default_factory=TableSettings)


def open_input(path: Path, modality: Modality, spec: InputSpec, options: TableOptions | None = None) -> ScoreInput:
    """Open the data at `path` for a bundle with input `spec`. Raises DataError if nothing in it can be scored."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder.")
    kind = cloud_modality(modality)
    if kind.has_frames:
        return _video_input(_files(path, VIDEO_SUFFIXES, "videos"), path, spec)
    if kind.has_encoder:
        return image_input(_files(path, IMAGE_SUFFIXES, "images"), spec, path)
    return _table_input(path, modality, spec, options or TableOptions())


def array_input(values: NDArray[Any], modality: Modality, spec: InputSpec) -> ScoreInput:
    """Return rows (n, features), or a series (time points, channels), as samples. Raises DataError if it is too short.

    A series is cut into windows as on devices.
    """
    values = np.asarray(values, dtype=np.float64)
    values = as_readings(values, modality)
    if values.ndim != 2 or values.shape[1] != len(spec.channels):
        raise DataError(f"An array of shape {values.shape}; this detector needs (n, {len(spec.channels)}).")
    return _readings_input("array", values, spec, np.arange(1, len(values) + 1), [], "")


def as_readings(values: NDArray[np.float64], modality: Modality) -> NDArray[np.float64]:
    """Return a series of one channel (time points,) as (time points, 1), and all else as it is."""
    return values[:, np.newaxis] if values.ndim == 1 and sample_type(modality).rank == 2 else values


def image_input(files: Sequence[Path], spec: InputSpec, root: Path | None = None) -> ScoreInput:
    """Return image files as samples; a file that cannot be read has a reason in place of values."""
    pixel_range = PixelRange.of(spec.pixel_range)

    def blocks() -> Iterator[list[InputSample]]:
        for start in range(0, len(files), IMAGES_PER_BLOCK):
            yield [_image(file, root, pixel_range) for file in files[start : start + IMAGES_PER_BLOCK]]

    return ScoreInput(len(files), blocks())


def _files(path: Path, suffixes: frozenset[str], what: str) -> list[Path]:
    """Return the files of a kind in a folder and its subfolders, without hidden ones; or the one file `path`."""
    if path.is_file():
        return [path]
    found = [
        entry
        for entry in sorted(path.rglob("*"))
        if entry.suffix.lower() in suffixes and entry.is_file() and not entry.name.startswith(".")
    ]
    if not found:
        raise DataError(f"{path}: holds no {what} ({' '.join(sorted(suffixes))}).")
    return found


def _named(file: Path, root: Path | None) -> str:
    if root is None:
        return str(file)
    return file.name if file == root else str(file.relative_to(root))


def _image(file: Path, root: Path | None, pixel_range: PixelRange | None) -> InputSample:
    name = _named(file, root)
    try:
        return InputSample(name, read_image(file, pixel_range), file=name)
    except DataError as error:  # also SampleRejected
        return InputSample(name, None, file=name, reason=str(error))


def _table_input(path: Path, modality: Modality, spec: InputSpec, options: TableOptions) -> ScoreInput:
    asked = DataSettings(label_column=options.label_column, time_column=options.time_column, table=options.table)
    settings = asked.for_bundle(spec, path)
    data = read_table_data(path, modality, settings, to_judge=True)
    readings = data.rows if data.test_rows is None else data.test_rows
    if readings.shape[1] != len(spec.channels):
        raise DataError(f"{path}: {readings.shape[1]} columns, but the bundle needs {len(spec.channels)}.")
    times = times_of(path, len(readings), options)
    return _readings_input(path.name, readings, spec, data.numbers(), times, path.name)


def _readings_input(
    origin: str,
    readings: NDArray[np.float64],
    spec: InputSpec,
    numbers: NDArray[np.int64],
    times: Sequence[str],
    file: str,
) -> ScoreInput:
    length, stride = spec.window_length, max(spec.window_stride, 1)
    if not length:
        starts, length = np.arange(len(readings)), 1
    elif len(readings) < length:
        raise DataError(f"{origin}: {len(readings)} time points, but a window of this bundle has {length}.")
    else:
        last = len(readings) - length
        starts = np.unique(np.append(np.arange(0, last + 1, stride), last))

    def sample(start: int) -> InputSample:
        end = start + length
        name = f"{numbers[start]}-{numbers[end - 1]}" if spec.window_length else str(numbers[start])
        moment = times[end - 1] if len(times) else ""
        values = readings[start:end] if spec.window_length else readings[start]
        if file and not spec.window_length and np.isnan(values).all():  # so the reader marks a bad cell
            return InputSample(
                name, None, file=file, time=moment, reason="a cell of this row cannot be read as a number"
            )
        return InputSample(name, values, file=file, time=moment)

    def blocks() -> Iterator[list[InputSample]]:
        for first in range(0, len(starts), ROWS_PER_BLOCK):
            yield [sample(int(start)) for start in starts[first : first + ROWS_PER_BLOCK]]

    return ScoreInput(len(starts), blocks())


def _video_input(files: Sequence[Path], root: Path, spec: InputSpec) -> ScoreInput:
    """Return the clips of videos; a video that cannot be opened or is too short is one sample with a reason."""
    opened: list[tuple[str, VideoClips | str]] = []
    for file in files:
        try:
            opened.append((_named(file, root), VideoClips.of([VideoFile(file, probe(file))], spec)))
        except DataError as error:
            opened.append((_named(file, root), str(error)))
    count = sum(1 if isinstance(clips, str) else len(clips) for _, clips in opened)

    def blocks() -> Iterator[list[InputSample]]:
        for name, clips in opened:
            if isinstance(clips, str):
                yield [InputSample(name, None, file=name, reason=clips)]
            else:
                yield from _clips_of(name, clips)

    return ScoreInput(count, blocks())


def _clips_of(name: str, clips: VideoClips) -> Iterator[list[InputSample]]:
    """Yield the clips of one video; where decoding fails, each clip that is left has the reason."""
    video, ends = clips.videos[0], clips.ends[0]
    done = 0

    def named(end: int, values: NDArray[Any] | None, reason: str = "") -> InputSample:
        return InputSample(
            f"{name}#{end}", values, file=name, time=f"{end / video.info.frames_per_second:.3f}", reason=reason
        )

    try:
        frames = read_clips(video, ends, clips.spec, clips.steps[0])
        while block := list(islice(frames, CLIPS_PER_BLOCK)):
            found = [named(int(end), values) for end, values in zip(ends[done:], block, strict=False)]
            done += len(block)
            yield found
    except DataError as error:
        failure = str(error)
    else:
        failure = f"{name}: the video ends before this clip"
    if done < len(ends):
        yield [named(int(end), None, failure) for end in ends[done:]]
