"""What is to be judged: samples of a file or folder in a bundle's terms, read when they are needed."""

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
from shared.modality import Modality

WINDOWS_PER_BLOCK = 4096


@dataclass(frozen=True)
class EvaluationData:
    """Samples to judge, read when they are needed.

    `count` samples with `labels` (count,) bool, true for anomalies, or None. Of a series, samples are windows that
    begin at `starts` (count,) in `readings` (time points, channels) with `point_labels`, `apart` where the file
    holds others to train on; of images, `images` are their files, `masks` those of their masks, and `good` are normal
    ones to fit baselines on; of videos, `clips` holds their clips, each with the label of its last frame.
    """

    modality: Modality
    count: int
    labels: NDArray[np.bool_] | None
    readings: NDArray[np.float64] | None = None
    window_length: int = 0
    starts: NDArray[np.intp] | None = None
    point_labels: NDArray[np.bool_] | None = None
    apart: bool = False
    images: tuple[Path, ...] = ()
    masks: tuple[Path | None, ...] = ()
    good: tuple[Path, ...] = ()
    clips: VideoClips | None = None

    def blocks(self) -> Iterator[Block]:
        """The samples, some at a time."""
        if self.clips is not None:
            yield from (cast(Block, clips) for clips in self.clips.blocks())
        elif self.images:
            yield from image_blocks(self.images)
        elif self.readings is not None and self.starts is not None:
            windows = np.lib.stride_tricks.sliding_window_view(self.readings, self.window_length, axis=0)
            for first in range(0, self.count, WINDOWS_PER_BLOCK):
                chosen = windows[self.starts[first : first + WINDOWS_PER_BLOCK]]
                yield np.ascontiguousarray(chosen.transpose(0, 2, 1))
        elif self.readings is not None:
            yield from row_blocks(self.readings)


def read_evaluation_data(
    path: Path, manifest: Manifest, label_column: str = "", time_column: str = ""
) -> EvaluationData:
    """The data in the bundle's terms. Raises DataError if it does not fit the bundle."""
    named = path.suffix.lower() != ".npz"  # the arrays of an archive have no column names
    settings = DataSettings(
        label_column=label_column,
        time_column=time_column,
        columns=manifest.input.channels if named else (),
        category_values=manifest.input.categories,
        missing="allow" if manifest.input.missing else "refuse",
        bad_rows="drop",  # such rows are rejected one by one below, and counted
    )
    data = load_training_data(path, manifest.modality, settings, to_judge=True)
    if isinstance(data, VideoData):
        clips = VideoClips.of(data.test or data.normal, manifest.input)
        return EvaluationData(data.modality, len(clips), clips.labels, clips=clips)
    if isinstance(data, ImageData):
        return _image_data(path, data)
    assert isinstance(data, TableData)  # that is what rows and series are
    if data.rows.shape[1] != len(manifest.input.channels):
        raise DataError(
            f"{path}: {data.rows.shape[1]} columns, and {manifest.bundle_id} takes "
            f"{len(manifest.input.channels)}: give the data it was made for."
        )
    if manifest.input.window_length:
        return _series_data(path, data, manifest)
    return EvaluationData(data.modality, len(data.rows), data.labels, data.rows)


def _image_data(path: Path, data: ImageData) -> EvaluationData:
    if not data.test:
        return EvaluationData(data.modality, len(data.good), None, images=data.good)
    masks = tuple(mask_of(path, image) for image in data.test)
    return EvaluationData(
        data.modality, len(data.test), data.test_labels, images=data.test, masks=masks, good=data.good
    )


def _series_data(path: Path, data: TableData, manifest: Manifest) -> EvaluationData:
    """The test part where there is one, else all readings, in the windows that devices see."""
    separate = data.test_rows is not None
    readings = data.test_rows if data.test_rows is not None else data.rows
    labels = data.test_labels if separate else data.labels
    length, stride = manifest.input.window_length, max(manifest.input.window_stride, 1)
    if len(readings) < length:
        raise DataError(f"{path}: {len(readings)} time points, and a window of this bundle has {length}.")
    last = len(readings) - length
    starts = np.unique(np.append(np.arange(0, last + 1, stride), last))
    touched = None
    if labels is not None:
        touched = np.lib.stride_tricks.sliding_window_view(labels, length).max(axis=1)[starts]
    return EvaluationData(data.modality, len(starts), touched, readings, length, starts, labels, apart=separate)
