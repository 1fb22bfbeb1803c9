"""Into how many rows at a time an engine cuts a batch.

How large a piece is best depends on the graph: one image already fills the caches, while rows of a table want to go
together. It is found by trying, between two bounds. On less than LEAST_BYTES what starting a request costs is all that
counts, and timing alone would mistake a busy core for a worse size. Beyond MOST_BYTES a piece needs memory, which grows
with it, and wins nothing: on images of 256 x 256 pixels one at a time is as fast as any number.
"""

import time
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

LEAST_BYTES, MOST_BYTES = 2**14, 2**17
TRIALS = 3
WORTHWHILE = 0.9  # a larger piece needs more memory: it has to save a tenth of the time


def best_piece(inputs: NDArray[Any], run: Callable[[int], object]) -> int:
    """Rows of a piece for batches such as `inputs` (batch, ...); `run` screens them in pieces of so many rows."""
    row_bytes = inputs[:1].nbytes
    most = min(most_rows(row_bytes), len(inputs))
    piece = best = min(max(1, LEAST_BYTES // row_bytes), most)
    if piece == most:  # one image fills a piece: there is nothing to try
        return best
    best_s = _seconds(run, piece)
    while piece < most:
        piece = min(2 * piece, most)
        seconds = _seconds(run, piece)
        if seconds > best_s * WORTHWHILE:
            break
        best, best_s = piece, seconds
    return best


def most_rows(row_bytes: int) -> int:
    """The most rows of a piece, of so many bytes each."""
    return max(1, MOST_BYTES // row_bytes)


def _seconds(run: Callable[[int], object], piece: int) -> float:
    """What a batch takes in pieces of so many rows, the best of some trials."""
    run(piece)
    times = []
    for _ in range(TRIALS):
        started_s = time.perf_counter()
        run(piece)
        times.append(time.perf_counter() - started_s)
    return min(times)
