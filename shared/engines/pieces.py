"""Sizes of the pieces that an engine cuts a batch into, so that all its streams work on it.

Measured CPU time per window, by piece size:

* two cores with AVX2, pieces of 32, 128, 512 and 1024: 17, 12, 11 and 11 us for windows of 128 readings; 100, 72, 71
  and 78 us for 1216 readings;
* two cores with AVX-512 and VNNI, pieces of 512, 1024 and 2048: 3.8, 3.7 and 3.6 us for 128 readings.

An image of 256 x 256 pixels fills the caches, so larger pieces are not faster.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PieceSizes:
    """Bounds of a piece.

    Attributes:
        min_vectors: Rows or windows in a piece, at least. Smaller matrix products are slow, and each request has a
            fixed cost.
        max_vectors: Rows or windows in a piece, at most. More gain little and need memory between the layers.
        max_vector_bytes: Bytes of float32 input in a piece of vectors, at most. More do not fit into the caches.
        max_image_bytes: Bytes of uint8 input in a piece of images or clips, at most; one image is always allowed.
        row_multiple: Every piece of vectors has a multiple of this many rows; the last one is padded. Kernels
            compute the rows beyond the last whole register, and single rows, in other ways. Without padding the last
            bit of a float score would depend on the batch.
    """

    min_vectors: int = 128
    max_vectors: int = 1024
    max_vector_bytes: int = 2**21
    max_image_bytes: int = 2**18
    row_multiple: int = 16

    def piece_size(self, shape: Sequence[int], streams: int) -> int:
        """Return the number of samples in a piece of a batch for that many streams.

        Args:
            shape: Shape of the batch: (batch, values) float32 vectors, or uint8 images or clips with more dimensions.
            streams: Streams that work on the batch in parallel.
        """
        batch_size, *sample = shape
        share = max(1, -(-batch_size // streams))
        if len(sample) > 1:
            return max(1, min(share, self.max_images(sample)))
        largest = max(self.min_vectors, min(self.max_vectors, self.max_vector_bytes // max(1, 4 * sample[0])))
        pieces_per_share = -(-share // largest)  # equal pieces: a stream with a small rest would wait for the others
        return max(self.min_vectors, self._rounded(-(-share // pieces_per_share)))

    def cut(self, inputs: NDArray[Any], streams: int) -> list[NDArray[Any]]:
        """Return `inputs` (batch, ...) as pieces for that many streams, the last piece of vectors padded.

        The outputs for the padding follow those of the batch; `len(inputs)` of them are valid.
        """
        size = self.piece_size(inputs.shape, streams)
        pieces = [inputs[start : start + size] for start in range(0, len(inputs), size)]
        if inputs.ndim == 2 and pieces and (missing := self._rounded(len(pieces[-1])) - len(pieces[-1])):
            pieces[-1] = np.concatenate([pieces[-1], np.repeat(pieces[-1][-1:], missing, axis=0)])
        return pieces

    def _rounded(self, rows: int) -> int:
        return -(-rows // self.row_multiple) * self.row_multiple

    def max_images(self, shape: Sequence[int]) -> int:
        """Return the largest number of images of this shape, (height, width, 3), in a piece."""
        return max(1, self.max_image_bytes // math.prod(shape))


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
