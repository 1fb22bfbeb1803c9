"""From samples to what analyzers work on: prepared, encoded, in blocks of bounded memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloud.methods import Features
from cloud.methods.clip_pooling import clip_scores
from cloud.serving.crops import known_patches, on_canvas
from shared.errors import SampleRejected
from shared.modality import Modality
from shared.preprocessing import ModePreprocessor, Preprocessor, SeriesPreprocessor, SeriesWindows, columns_of, modes_of
from shared.samples import ImageCrop, Values

VECTORS_A_BLOCK = 4096
IMAGES_A_BLOCK, PATCHES_A_BLOCK = 8, 20_000
MAX_FIT_VECTORS, FEWEST_FIT_IMAGES = 250_000, 20


class Encoder(Protocol):
    """Images or clips to patch vectors; see `cloud.methods.encoders`."""

    grid: tuple[int, int]

    def encode(self, images: NDArray[Any]) -> Tensor:
        """(n, patches, dim) float32 of images (n, height, width, 3) or clips (n, frames, height, width, 3) uint8."""
        ...


@runtime_checkable
class DetailEncoder(Encoder, Protocol):
    """One that has another, wider view of each patch."""

    def views(self, images: NDArray[Any]) -> tuple[Tensor, Tensor]:
        """Vectors as of `encode`, and details (n, patches, details) float32."""
        ...


@dataclass(frozen=True)
class Samples:
    """Samples that can be used.

    `inputs`: (n, ...) graph inputs. `windows`: of a series, what these were made from. `kept` and `rejections` are
    those of `Prepared`. `parts`: (n,) which part of its image each shows, None for all of it.
    """

    preprocessor: Preprocessor
    inputs: NDArray[Any]
    windows: SeriesWindows | None
    kept: NDArray[np.intp]
    rejections: list[tuple[int, str]]
    parts: Sequence[ImageCrop | None] = ()

    @classmethod
    def prepare(
        cls,
        preprocessor: Preprocessor,
        values: NDArray[Any] | Sequence[Values],
        parts: Sequence[ImageCrop | None] = (),
        grid: tuple[int, int] = (1, 1),
    ) -> Self:
        """Graph inputs of the samples, with a reason for each that cannot be used.

        `parts`: of each sample which part of its image its values are, None where they are all of it; empty: all are.
        `grid`: rows and columns of the encoder's patches, to know which of these a part shows.
        """
        refused: list[tuple[int, str]] = []
        if any(part is not None for part in parts):
            values, refused = _whole(preprocessor, values, parts, grid)
        prepared = preprocessor.prepare(values)
        failed = {position for position, _ in refused}
        reasons = [*refused, *(item for item in prepared.rejections if item[0] not in failed)]
        shown = [parts[position] for position in prepared.kept] if len(parts) else ()
        return cls(preprocessor, prepared.inputs, prepared.windows, prepared.kept, sorted(reasons), shown)

    def __len__(self) -> int:
        return len(self.inputs)

    def at(self, rows: slice | NDArray[Any]) -> "Samples":
        """Some of the samples, by position."""
        windows = None if self.windows is None else self.windows.at(rows)
        parts = [self.parts[row] for row in np.arange(len(self))[rows].tolist()] if self.parts else ()
        return Samples(self.preprocessor, self.inputs[rows], windows, self.kept[rows], [], parts)

    def joined(self, others: "Samples") -> "Samples":
        """These samples and then the `others`, of the same preprocessing."""
        windows = None
        if self.windows is not None and others.windows is not None:
            windows = self.windows.joined(others.windows)
        inputs = np.concatenate([self.inputs, others.inputs])
        return Samples(self.preprocessor, inputs, windows, np.arange(len(inputs)), [])

    def blocks(self, encoder: Encoder | None) -> Iterator["Samples"]:
        """All of the samples, few enough at a time for an analyzer."""
        size = VECTORS_A_BLOCK
        if encoder is not None:
            size = max(1, min(IMAGES_A_BLOCK, PATCHES_A_BLOCK // (encoder.grid[0] * encoder.grid[1])))
        for start in range(0, len(self), size):
            yield self.at(slice(start, start + size))

    def features(self, encoder: Encoder | None, device: torch.device) -> Features:
        """What analyzers work on, of all the samples at once."""
        if isinstance(encoder, DetailEncoder):
            vectors, details = encoder.views(self.inputs)
            return Features(
                vectors.to(device), encoder.grid, details=details.to(device), known=self._known(encoder.grid, device)
            )
        if encoder is not None:
            return self._of_patches(encoder.encode(self.inputs).to(device), encoder)
        features = vector_features(self.inputs, self.preprocessor, device)
        if self.windows is None:
            return features
        return Features(
            features.vectors,
            observed=features.observed,
            windows=_on(device, self.windows.values.astype(np.float32)),
            windows_observed=_on(device, self.windows.observed),
            modes=features.modes,
            surprise_columns=features.surprise_columns,
        )

    def _known(self, grid: tuple[int, int], device: torch.device) -> Tensor | None:
        """(n, rows, columns) bool, None where all images are whole."""
        if not any(part is not None for part in self.parts):
            return None
        size = self.preprocessor.spec.image_height, self.preprocessor.spec.image_width
        whole = np.ones(grid, dtype=np.bool_)
        known = [whole if part is None else known_patches(part, size, grid) for part in self.parts]
        return _on(device, np.stack(known))

    def fit_features(self, encoder: Encoder | None, device: torch.device, generator: torch.Generator) -> Features:
        """What analyzers are fitted on: all rows or windows; of images as many at random as memory allows, whole.

        Without the details of images: the one method that reads them learns from corrupted copies instead.
        """
        if encoder is None:
            return self.features(None, device)
        most = max(FEWEST_FIT_IMAGES, MAX_FIT_VECTORS // (encoder.grid[0] * encoder.grid[1]))
        chosen = torch.randperm(len(self), generator=generator)[:most].sort().values.numpy()
        parts = [encoder.encode(block.inputs).to(device) for block in self.at(chosen).blocks(encoder)]
        return self._of_patches(torch.cat(parts), encoder)

    def _of_patches(self, vectors: Tensor, encoder: Encoder) -> Features:
        if self.preprocessor.modality is Modality.VIDEO:
            return Features(vectors, encoder.grid, pool=clip_scores)
        return Features(vectors, encoder.grid, known=self._known(encoder.grid, vectors.device))

    def modes(self) -> NDArray[np.int64] | None:
        """The operating mode of each sample (n,), None without a mode channel."""
        return modes_of(self.inputs, self.preprocessor.spec)


def _whole(
    preprocessor: Preprocessor,
    values: NDArray[Any] | Sequence[Values],
    parts: Sequence[ImageCrop | None],
    grid: tuple[int, int],
) -> tuple[list[Values], list[tuple[int, str]]]:
    """The samples with parts of images in their places; those that cannot be judged are empty, and have a reason."""
    size = preprocessor.spec.image_height, preprocessor.spec.image_width
    whole, refused = list(values), []
    for position, part in enumerate(parts):
        if part is not None:
            try:
                whole[position] = on_canvas(np.asarray(values[position], np.uint8), part, size, grid)
            except SampleRejected as error:
                whole[position] = np.empty((0, 0, 3), np.uint8)
                refused.append((position, str(error)))
    return whole, refused


def series_of(preprocessor: Preprocessor) -> SeriesPreprocessor | None:
    """The preprocessing of windows within this one, if it is for series."""
    inner = preprocessor.inner if isinstance(preprocessor, ModePreprocessor) else preprocessor
    return inner if isinstance(inner, SeriesPreprocessor) else None


def vector_features(inputs: NDArray[Any], preprocessor: Preprocessor, device: torch.device) -> Features:
    """Features of the graph inputs (n, width) of rows or windows, without the windows behind them."""
    parts = columns_of(np.ascontiguousarray(inputs, dtype=np.float32), preprocessor.spec)
    series = series_of(preprocessor)
    return Features(
        _on(device, parts.vectors).flatten(1).unsqueeze(1),
        observed=None if parts.observed is None else _on(device, parts.observed).unsqueeze(1),
        modes=None if parts.modes is None else _on(device, parts.modes),
        surprise_columns=None if series is None else series.surprise_columns,
    )


def _on(device: torch.device, array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
