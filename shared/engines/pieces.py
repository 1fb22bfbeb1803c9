"""Into how many samples at a time an engine cuts a batch.

Each stream gets its share, between bounds. Vectors want to go together: of fewer than LEAST_VECTORS the products of
matrices are slow, and what starting a request costs counts. More than MOST_VECTOR_BYTES of input do not fit into the
caches; more than MOST_VECTORS win next to nothing, and what lies between the layers takes memory. (Measured on two
cores with AVX2, CPU time a window in pieces of 32, 128, 512 and 1024: 17, 12, 11 and 11 us of 128 readings, 100, 72, 71
and 78 us of 1216; on two with AVX-512 and VNNI, in pieces of 512, 1024 and 2048: 3.8, 3.7 and 3.6 us of 128.) An image
of 256 x 256 pixels fills the caches already, and is as fast alone as with others.
"""

import math
import os
from collections.abc import Sequence

LEAST_VECTORS, MOST_VECTORS, MOST_VECTOR_BYTES = 128, 1024, 2**21
MOST_IMAGE_BYTES = 2**18
PIECES = (
    LEAST_VECTORS,
    MOST_VECTORS,
    MOST_VECTOR_BYTES,
    MOST_IMAGE_BYTES,
)  # what is remembered of engines depends on them


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def piece_size(shape: Sequence[int], streams: int) -> int:
    """Samples of a piece of a batch of this shape, of vectors in float32 or of images in bytes, for so many streams."""
    batch_size, *sample = shape
    share = max(1, -(-batch_size // streams))
    if len(sample) > 1:
        return max(1, min(share, most_images(sample)))
    most = max(LEAST_VECTORS, min(MOST_VECTORS, MOST_VECTOR_BYTES // max(1, 4 * sample[0])))
    pieces_a_share = -(-share // most)  # of one size: a stream with a scrap at the end would wait for the others
    return max(LEAST_VECTORS, -(-share // pieces_a_share))


def most_images(shape: Sequence[int]) -> int:
    """The most images of a piece, each of this shape."""
    return max(1, MOST_IMAGE_BYTES // math.prod(shape))
