"""Embedding of samples, in which near copies are found.

Rows and windows: the graph inputs (standardised features, or the views of a window), one block. Images and clips: two
blocks, the screener's map pooled to MAP_CELLS x MAP_CELLS by its maxima, so that a small defect stays visible, and a
grey thumbnail of the picture, or of the first and last frame.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.screener import ScreenedBatch, Screener
from shared.images import resize
from shared.modalities import sample_type

MAP_CELLS = 8
THUMBNAIL_PIXELS = 16


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embeddings `values` (n, dim) float32; `blocks`: length of each block of columns, compared by itself."""

    values: NDArray[np.float32]
    blocks: tuple[int, ...]


def embed(screened: ScreenedBatch, screener: Screener, places: NDArray[np.intp]) -> Embedded:
    """Return the embeddings of the samples at `places` (n,) in `screened.kept`."""
    inputs = screened.inputs[places]
    if sample_type(screener.modality).has_vectors:
        vectors = np.asarray(screener.graph_inputs(inputs), dtype=np.float32).reshape(len(places), -1)
        return Embedded(vectors, (vectors.shape[1],))
    thumbnails = _thumbnails(inputs, frames=1 if sample_type(screener.modality).rank == 3 else 2)
    if screened.maps is None:
        return Embedded(thumbnails, (thumbnails.shape[1],))
    maps = [_pooled(screener.scaled_map(screened.maps[place])) for place in places.tolist()]
    pooled = np.stack(maps) if maps else np.zeros((0, MAP_CELLS * MAP_CELLS), np.float32)
    return Embedded(np.concatenate([pooled, thumbnails], axis=1), (pooled.shape[1], thumbnails.shape[1]))


def _pooled(cells: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the maxima of a map (height, width) in MAP_CELLS x MAP_CELLS areas, flat, in [0, 1]."""
    rows, columns = (_edges(size) for size in cells.shape)
    pooled = np.maximum.reduceat(np.maximum.reduceat(cells, rows, axis=0), columns, axis=1)
    spread = pooled[_spread(len(rows))][:, _spread(len(columns))]
    return (spread.ravel() / 255).astype(np.float32)


def _edges(size: int) -> NDArray[np.intp]:
    return np.unique(np.arange(MAP_CELLS) * size // MAP_CELLS)


def _spread(found: int) -> NDArray[np.intp]:
    """Return the place among `found` areas of each of MAP_CELLS cells: a small map has fewer areas."""
    return np.arange(MAP_CELLS) * found // MAP_CELLS


def _thumbnails(inputs: NDArray[np.uint8], frames: int) -> NDArray[np.float32]:
    """Return grey thumbnails (n, dim) in [0, 1] of images (n, height, width, 3), or of two frames of each clip."""
    result = np.zeros((len(inputs), frames, THUMBNAIL_PIXELS**2), dtype=np.float32)
    for place, sample in enumerate(inputs):
        for number, frame in enumerate([sample] if frames == 1 else [sample[0], sample[-1]]):
            small = resize(frame, THUMBNAIL_PIXELS, THUMBNAIL_PIXELS)
            result[place, number] = small.mean(axis=2).ravel() / 255
    return result.reshape(len(inputs), frames * THUMBNAIL_PIXELS**2)
