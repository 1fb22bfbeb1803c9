"""Preprocessing of clips: RGB frames at the size of the graph, which scales the pixel values itself."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.bundle import InputSpec
from shared.errors import DataError
from shared.images import resize
from shared.modality import Modality
from shared.preprocessing.base import Prepared, Preprocessor
from shared.preprocessing.image import MIN_SIDE_PIXELS

MIN_CLIP_FRAMES = 2  # one frame has no temporal difference


class VideoPreprocessor(Preprocessor):
    """Resizing of clips (frames, height, width, 1 or 3) uint8 to graph inputs (n, frames, height, width, 3) uint8.

    `spec.window_length` is the number of frames of a clip.
    """

    modality = Modality.VIDEO

    def __init__(self, spec: InputSpec) -> None:
        if spec.image_height < MIN_SIDE_PIXELS or spec.image_width < MIN_SIDE_PIXELS:
            raise DataError(f"A graph for frames of {spec.image_height} x {spec.image_width} pixels is too small.")
        if spec.window_length < MIN_CLIP_FRAMES:
            raise DataError(
                f"A clip needs at least {MIN_CLIP_FRAMES} frames, not {spec.window_length}: raise video.clip_frames."
            )
        self.spec = spec

    def prepare(self, values: NDArray[Any] | Sequence[NDArray[Any]]) -> Prepared:
        """Return graph inputs (kept, frames, image_height, image_width, 3) uint8."""
        frames = self.spec.window_length
        if isinstance(values, np.ndarray) and values.dtype == np.uint8 and values.shape[1:] == self._shape:
            return Prepared(values, np.arange(len(values), dtype=np.intp), [])
        inputs = np.empty((len(values), *self._shape), dtype=np.uint8)
        kept: list[int] = []
        rejections: list[tuple[int, str]] = []
        for position, clip in enumerate(values):
            reason = _rejection_reason(clip, frames)
            if reason:
                rejections.append((position, reason))
                continue
            for index in range(frames):
                inputs[len(kept), index] = graph_frame(np.ascontiguousarray(clip[index]), self.spec)
            kept.append(position)
        return Prepared(inputs[: len(kept)], np.array(kept, dtype=np.intp), rejections)

    def files(self) -> dict[str, bytes]:
        """Return no files, since the manifest holds the sizes."""
        return {}

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        return self.spec.window_length, self.spec.image_height, self.spec.image_width, 3


def graph_frame(pixels: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Return a frame (height, width, 1 or 3) as RGB at the size of the graph's input."""
    return resize(pixels, spec.image_height, spec.image_width)


def _rejection_reason(clip: Any, frames: int) -> str:
    """Return why the clip is invalid, or an empty text."""
    if not isinstance(clip, np.ndarray) or clip.dtype != np.uint8:
        return "is not a clip of 8-bit pixels."
    if clip.ndim != 4 or clip.shape[3] not in (1, 3):
        return f"has shape {clip.shape}; expected (frames, height, width, 1 or 3)."
    if clip.shape[0] != frames:
        return f"has {clip.shape[0]} frames; expected {frames}."
    if min(clip.shape[1:3]) < MIN_SIDE_PIXELS:
        return f"has {clip.shape[1]} x {clip.shape[2]} pixels; the minimum is {MIN_SIDE_PIXELS} x {MIN_SIDE_PIXELS}."
    return ""
