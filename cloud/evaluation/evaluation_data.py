"""Samples of a file or folder in the input format of a bundle, read lazily in blocks."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.images import image_blocks
from cloud.evaluation.methods import row_blocks
from cloud.evaluation.protocols import mask_of
from cloud.evaluation.scoring import Block
from cloud.evaluation.video_clips import VideoClips
from cloud.training.data import TableData
from cloud.training.modalities import load_training_data
from cloud.training.samples.images import ImageData
from cloud.training.samples.videos import VideoData
from cloud.training.settings import DataSettings
from shared.bundle import Manifest
from shared.errors import DataError
from shared.images import PixelRange
from shared.modality import Modality

WINDOWS_PER_BLOCK = 4096


@dataclass(frozen=True)
class EvaluationData:
    """Samples to evaluate, read lazily.

    Attributes:
        count: number of samples.
        labels: (count,) bool, true for anomalies, or None.
        readings: rows of a table (count, features), or time points of a series (time points, channels).
        starts: (count,) first time point of each window of a series.
        point_labels: (time points,) bool, labels of a series.
        has_test_part: whether the file of a series has a test part of its own.
        row_numbers: (count,) number of each row of a table in its file, from 1; None for other data.
        images: image files; `masks` are their mask files, `good` normal images to fit the baselines on.
        pixel_range: for deep images, the range of the bundle.
        clips: clips of videos, each labelled by its last frame.
    """

    modality: Modality
    count: int
    labels: NDArray[np.bool_] | None
    readings: NDArray[np.float64] | None = None
    window_length: int = 0
    starts: NDArray[np.intp] | None = None
    point_labels: NDArray[np.bool_] | None = None
    has_test_part: bool = False
    row_numbers: NDArray[np.int64] | None = None
    images: tuple[Path, ...] = ()
    masks: tuple[Path | None, ...] = ()
    good: tuple[Path, ...] = ()
    pixel_range: PixelRange | None = None
    clips: VideoClips | None = None

    def row_number(self, position: int) -> int:
        """Return the number of a sample in its file, from 1."""
        return position + 1 if self.row_numbers is None else int(self.row_numbers[position])

    def blocks(self) -> Iterator[Block]:
        """Yield the samples in blocks."""
        if self.clips is not None:
            yield from (cast(Block, clips) for clips in self.clips.blocks())
        elif self.images:
            yield from image_blocks(self.images, self.pixel_range)
        elif self.readings is not None and self.starts is not None:
            windows = np.lib.stride_tricks.sliding_window_view(self.readings, self.window_length, axis=0)
            for first in range(0, self.count, WINDOWS_PER_BLOCK):
                chosen = windows[self.starts[first : first + WINDOWS_PER_BLOCK]]
                yield np.ascontiguousarray(chosen.transpose(0, 2, 1))
        elif self.readings is not None:
            yield from row_blocks(self.readings)


def read_evaluation_data(path: Path, manifest: Manifest, settings: DataSettings) -> EvaluationData:
    """Read data in the input format of a bundle; raise DataError if it does not fit the bundle.

    `settings`: the format of the table and the columns of label and time; the bundle decides everything else.
    """
    fitting = settings.for_bundle(manifest.input, path)
    data = load_training_data(path, manifest.modality, fitting, to_judge=True)
    if isinstance(data, VideoData):
        clips = VideoClips.of(data.test or data.normal, manifest.input)
        return EvaluationData(data.modality, len(clips), clips.labels, clips=clips)
    if isinstance(data, ImageData):
        return _image_data(path, data, PixelRange.of(manifest.input.pixel_range))
    assert isinstance(data, TableData)  # rows and series are both tables
    if data.rows.shape[1] != len(manifest.input.channels):
        raise DataError(
            f"{path}: {data.rows.shape[1]} columns, but {manifest.bundle_id} needs "
            f"{len(manifest.input.channels)}: give data like its training data."
        )
    if manifest.input.window_length:
        return _series_data(path, data, manifest)
    return EvaluationData(data.modality, len(data.rows), data.labels, data.rows, row_numbers=data.numbers())


def _image_data(path: Path, data: ImageData, pixel_range: PixelRange | None) -> EvaluationData:
    if not data.test:
        return EvaluationData(data.modality, len(data.good), None, images=data.good, pixel_range=pixel_range)
    masks = tuple(mask_of(path, image) for image in data.test)
    return EvaluationData(
        data.modality,
        len(data.test),
        data.test_labels,
        images=data.test,
        masks=masks,
        good=data.good,
        pixel_range=pixel_range,
    )


def _series_data(path: Path, data: TableData, manifest: Manifest) -> EvaluationData:
    """Return the test part of a series, or all readings if it has none, cut into windows as on devices."""
    has_test_part = data.test_rows is not None
    readings = data.test_rows if data.test_rows is not None else data.rows
    labels = data.test_labels if has_test_part else data.labels
    length, stride = manifest.input.window_length, max(manifest.input.window_stride, 1)
    if len(readings) < length:
        raise DataError(f"{path}: {len(readings)} time points, but a window of this bundle has {length}.")
    last = len(readings) - length
    starts = np.unique(np.append(np.arange(0, last + 1, stride), last))
    window_labels = None
    if labels is not None:
        window_labels = np.lib.stride_tricks.sliding_window_view(labels, length).max(axis=1)[starts]
    return EvaluationData(
        data.modality, len(starts), window_labels, readings, length, starts, labels, has_test_part=has_test_part
    )
