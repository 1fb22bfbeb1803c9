"""Into how many samples at a time an engine cuts a batch.

Each stream gets its share, between bounds. Vectors want to go together: of fewer than LEAST_VECTORS the products of
matrices are slow, and what starting a request costs counts; of more than MOST_VECTORS they do not fit into the caches.
(Measured on two cores, CPU time a window in pieces of 32, 128, 512 and 1024: 17, 12, 11 and 11 us of 128 readings, 100,
72, 71 and 78 us of 1216.) An image of 256 x 256 pixels fills the caches already, and is as fast alone as with others.
"""

import math
import os
from collections.abc import Sequence

LEAST_VECTORS, MOST_VECTORS = 128, 512
MOST_IMAGE_BYTES = 2**18
PIECES = (LEAST_VECTORS, MOST_VECTORS, MOST_IMAGE_BYTES)  # what is remembered of engines depends on them


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def piece_size(shape: Sequence[int], streams: int) -> int:
    """Samples of a piece of a batch of this shape, of vectors in float32 or of images in bytes, for so many streams."""
    batch_size, *sample = shape
    share = -(-batch_size // streams)
    if len(sample) == 1:
        return min(max(share, LEAST_VECTORS), MOST_VECTORS)
    return max(1, min(share, most_images(sample)))


def most_images(shape: Sequence[int]) -> int:
    """The most images of a piece, each of this shape."""
    return max(1, MOST_IMAGE_BYTES // math.prod(shape))
