"""Samples of one bundle, prepared for its analyzers: features in blocks of bounded memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from cloud.methods import Features
from cloud.methods.encoders import Encoder
from cloud.modalities import cloud_modality
from cloud.serving.crops import known_patches, place_crop
from shared.errors import SampleRejected
from shared.preprocessing import Preprocessor, SeriesWindows, modes_of
from shared.samples import ImageCrop, Values

BLOCK_VECTORS = 4096
BLOCK_IMAGES, BLOCK_PATCHES = 8, 20_000
MAX_FIT_VECTORS, MIN_FIT_IMAGES = 250_000, 20


@dataclass(frozen=True)
class Samples:
    """Samples that can be used.

    Attributes:
        preprocessor: Preprocessing that made the inputs.
        inputs: Graph inputs (n, ...).
        windows: Windows that the inputs were made from, for a series.
        kept: Positions (n,) of these samples among those given to `prepare`.
        rejections: Positions of the others, with the reason.
        crops: (n,) the crop that each sample shows, None for a whole image; empty if all images are whole.
    """

    preprocessor: Preprocessor
    inputs: NDArray[Any]
    windows: SeriesWindows | None
    kept: NDArray[np.intp]
    rejections: list[tuple[int, str]]
    crops: Sequence[ImageCrop | None] = ()

    @classmethod
    def prepare(
        cls,
        preprocessor: Preprocessor,
        values: NDArray[Any] | Sequence[Values],
        crops: Sequence[ImageCrop | None] = (),
        grid: tuple[int, int] = (1, 1),
    ) -> Self:
        """Return the samples as graph inputs, with a reason for each that cannot be used.

        `crops`: the crop of its image that each sample shows, None for a whole image; empty if all images are whole.
        `grid`: rows and columns of the encoder's patches; it decides which patches a crop shows.
        """
        rejected: list[tuple[int, str]] = []
        if any(crop is not None for crop in crops):
            values, rejected = _on_canvases(preprocessor, values, crops, grid)
        prepared = preprocessor.prepare(values)
        failed = {position for position, _ in rejected}
        reasons = [*rejected, *(item for item in prepared.rejections if item[0] not in failed)]
        shown = [crops[position] for position in prepared.kept] if len(crops) else ()
        return cls(preprocessor, prepared.inputs, prepared.windows, prepared.kept, sorted(reasons), shown)

    def __len__(self) -> int:
        return len(self.inputs)

    def at(self, rows: slice | NDArray[Any]) -> "Samples":
        """Return some of the samples, by position."""
        windows = None if self.windows is None else self.windows.at(rows)
        crops = [self.crops[row] for row in np.arange(len(self))[rows].tolist()] if self.crops else ()
        return Samples(self.preprocessor, self.inputs[rows], windows, self.kept[rows], [], crops)

    def joined(self, others: "Samples") -> "Samples":
        """Return these samples followed by the `others`, which have the same preprocessing."""
        windows = None
        if self.windows is not None and others.windows is not None:
            windows = self.windows.joined(others.windows)
        inputs = np.concatenate([self.inputs, others.inputs])
        return Samples(self.preprocessor, inputs, windows, np.arange(len(inputs)), [])

    def blocks(self, encoder: Encoder | None) -> Iterator["Samples"]:
        """Yield the samples in blocks that bound the memory of an analyzer."""
        size = BLOCK_VECTORS
        if encoder is not None:
            size = max(1, min(BLOCK_IMAGES, BLOCK_PATCHES // (encoder.grid[0] * encoder.grid[1])))
        for start in range(0, len(self), size):
            yield self.at(slice(start, start + size))

    def features(self, encoder: Encoder | None, device: torch.device) -> Features:
        """Return the features of all samples at once."""
        return cloud_modality(self.preprocessor.modality).features(self, encoder, device)

    def fit_features(self, encoder: Encoder | None, device: torch.device, generator: torch.Generator) -> Features:
        """Return the features to fit on: all rows or windows, or a random subset of images that fits into memory.

        Images come without details: the analyzer that uses them learns from corrupted copies instead.
        """
        modality = cloud_modality(self.preprocessor.modality)
        if encoder is None:
            return modality.features(self, None, device)
        count = max(MIN_FIT_IMAGES, MAX_FIT_VECTORS // (encoder.grid[0] * encoder.grid[1]))
        chosen = torch.randperm(len(self), generator=generator)[:count].sort().values.numpy()
        vectors = [encoder.encode(block.inputs).to(device) for block in self.at(chosen).blocks(encoder)]
        return modality.fit_features(torch.cat(vectors), encoder)

    def known_patches(self, grid: tuple[int, int]) -> NDArray[np.bool_] | None:
        """Return the patches that can be judged (n, rows, columns); None if all images are whole."""
        if not any(crop is not None for crop in self.crops):
            return None
        size = self.preprocessor.spec.image_height, self.preprocessor.spec.image_width
        whole = np.ones(grid, dtype=np.bool_)
        return np.stack([whole if crop is None else known_patches(crop, size, grid) for crop in self.crops])

    def modes(self) -> NDArray[np.int64] | None:
        """Return the operating mode of each sample (n,); None without a mode channel."""
        return modes_of(self.inputs, self.preprocessor.spec)


def _on_canvases(
    preprocessor: Preprocessor,
    values: NDArray[Any] | Sequence[Values],
    crops: Sequence[ImageCrop | None],
    grid: tuple[int, int],
) -> tuple[list[Values], list[tuple[int, str]]]:
    """Return the samples with crops placed in whole images; those that cannot be judged are empty, with a reason."""
    size = preprocessor.spec.image_height, preprocessor.spec.image_width
    images, rejected = list(values), []
    for position, crop in enumerate(crops):
        if crop is not None:
            try:
                images[position] = place_crop(np.asarray(values[position], np.uint8), crop, size, grid)
            except SampleRejected as error:
                images[position] = np.empty((0, 0, 3), np.uint8)
                rejected.append((position, str(error)))
    return images, rejected
