"""Preprocessing of images: RGB at the size of the graph, which scales the pixel values itself."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.bundle import InputSpec
from shared.errors import DataError
from shared.images import resize
from shared.modality import Modality
from shared.preprocessing.base import Prepared, Preprocessor

MIN_SIDE_PIXELS = 8


class ImagePreprocessor(Preprocessor):
    """Resizing of pixels (height, width, 1 or 3) uint8 to graph inputs (n, image_height, image_width, 3) uint8."""

    modality = Modality.IMAGE

    def __init__(self, spec: InputSpec) -> None:
        if spec.image_height < MIN_SIDE_PIXELS or spec.image_width < MIN_SIDE_PIXELS:
            raise DataError(f"A graph for images of {spec.image_height} x {spec.image_width} pixels is too small.")
        self.spec = spec

    def prepare(self, values: NDArray[Any] | Sequence[NDArray[Any]]) -> Prepared:
        """Return graph inputs (kept, image_height, image_width, 3) uint8."""
        height, width = self.spec.image_height, self.spec.image_width
        inputs = np.empty((len(values), height, width, 3), dtype=np.uint8)
        kept: list[int] = []
        rejections: list[tuple[int, str]] = []
        for position, pixels in enumerate(values):
            reason = _rejection_reason(pixels)
            if reason:
                rejections.append((position, reason))
                continue
            inputs[len(kept)] = resize(np.ascontiguousarray(pixels), height, width)
            kept.append(position)
        return Prepared(inputs[: len(kept)], np.array(kept, dtype=np.intp), rejections)

    def files(self) -> dict[str, bytes]:
        """Return no files, since the manifest holds the size."""
        return {}


def _rejection_reason(pixels: Any) -> str:
    """Return why the pixels are invalid, or an empty text."""
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        return "is not an image of 8-bit pixels."
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        return f"has shape {pixels.shape}; expected (height, width, 1 or 3)."
    if min(pixels.shape[:2]) < MIN_SIDE_PIXELS:
        return (
            f"has {pixels.shape[0]} x {pixels.shape[1]} pixels; the minimum is {MIN_SIDE_PIXELS} x {MIN_SIDE_PIXELS}."
        )
    return ""
