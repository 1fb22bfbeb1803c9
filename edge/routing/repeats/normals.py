"""Random sample of the accepted samples of a source: the scale by which near copies are measured.

Source of the sampling: Vitter, "Random sampling with a reservoir", algorithm R (1985).
"""

import numpy as np
from numpy.typing import NDArray

CAPACITY = 512
LEAST = 64  # accepted samples without which nothing is a near copy
REFRESH_SHARE = 1.25  # growth of the number of samples after which the scale is computed again


class NormalSample:
    """Reservoir of embeddings in blocks, and the distance in units of the usual distance between neighbours.

    The unit of a block is the median distance of a sample to its nearest neighbour in the reservoir. The distance of
    two embeddings is the largest of their blocks.
    """

    def __init__(self, blocks: tuple[int, ...], seed: int = 0) -> None:
        self.blocks = blocks
        self._random = np.random.default_rng(seed)
        self._values = np.empty((CAPACITY, sum(blocks)), dtype=np.float32)
        self.filled = self.seen = 0
        self._scaled_seen = 0
        self._units: NDArray[np.float64] | None = None
        self.version = 0  # grows with each new scale

    @property
    def is_ready(self) -> bool:
        """Whether there are enough samples to measure distances by."""
        return self._units is not None

    @property
    def values(self) -> NDArray[np.float32]:
        """The embeddings (filled, dim)."""
        return self._values[: self.filled]

    def wanted(self, count: int) -> NDArray[np.intp]:
        """Return which of the next `count` accepted samples to `put`, and count all of them as seen."""
        room = min(CAPACITY - self.filled, count)
        counts = self.seen + 1 + np.arange(count)
        self.seen += count
        return np.flatnonzero((np.arange(count) < room) | (self._random.random(count) * counts < CAPACITY))

    def put(self, values: NDArray[np.float32]) -> None:
        """Put the embeddings (n, dim) of wanted samples in, at free places first, then at random ones."""
        for value in values:
            place = self.filled if self.filled < CAPACITY else int(self._random.integers(CAPACITY))
            self._values[place] = value
            self.filled = max(self.filled, place + 1)
        if self.filled >= LEAST and self.seen >= REFRESH_SHARE * self._scaled_seen:
            self._rescale()

    def distances(self, one: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the distances (n, m) of embeddings (n, dim) and (m, dim) in units; infinite without a scale."""
        found = np.zeros((len(one), len(others)))
        if self._units is None:
            return np.full_like(found, np.inf)
        start = 0
        for length, unit in zip(self.blocks, self._units.tolist(), strict=True):
            block = slice(start, start + length)
            found = np.maximum(found, _euclidean(one[:, block], others[:, block]) / unit)
            start += length
        return found

    def nearest(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the distance (n,) of embeddings (n, dim) to their nearest normal sample, in units."""
        return np.asarray(self.distances(values, self.values).min(axis=1))

    def restore(self, values: NDArray[np.float32], seen: int) -> None:
        """Go on from earlier samples."""
        self.filled, self.seen = min(len(values), CAPACITY), max(seen, len(values))
        self._values[: self.filled] = values[: self.filled]
        if self.filled >= LEAST:
            self._rescale()

    def _rescale(self) -> None:
        self._scaled_seen = self.seen
        units, start = [], 0
        for length in self.blocks:
            block = self.values[:, start : start + length]
            apart = _euclidean(block, block)
            np.fill_diagonal(apart, np.inf)
            units.append(float(np.median(apart.min(axis=1))))
            start += length
        self._units = np.maximum(np.array(units), np.finfo(np.float32).tiny)
        self.version += 1


def _euclidean(one: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the Euclidean distances (n, m)."""
    a, b = one.astype(np.float64), others.astype(np.float64)
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :] - 2.0 * a @ b.T
    distances: NDArray[np.float64] = np.sqrt(np.maximum(squares, 0.0))
    return distances
