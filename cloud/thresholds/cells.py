"""Packed counts of the replay: a histogram of p-values on a log scale, and a bank of token buckets.

A histogram counts the sent samples of one source in one day by route and bin of the p-value. Bin b holds p-values in
(10 ** -((b + 1) / BINS_PER_DECADE), 10 ** -(b / BINS_PER_DECADE)], so a bin is 5 % wide. A bank counts the samples that
a budget of each rate in BUDGETS_PER_S would have let pass.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shared.samples import Route

BINS_PER_DECADE = 50
BINS = 12 * BINS_PER_DECADE + 1  # down to shared.calibration.MIN_P_VALUE
ROUTES = (Route.ACCEPT, Route.FORWARD, Route.ALARM, Route.AUDIT)
SAMPLES, ASKING, BYTES = range(3)  # columns: sent samples, verdicts that ask for a person, bytes of their messages
COLUMNS = 3
BURST_S = 10.0  # unused budget that a device may save up: the default of its setting router.burst_s
BUDGETS_PER_S: NDArray[np.float64] = 10.0 ** (np.arange(-25, 16) / 5.0)
"""(budgets,) rates in samples a second, five a decade from 1e-5 to 1e3."""
BUDGETS = len(BUDGETS_PER_S)
_PACKED = np.dtype([("cell", "<u2"), ("samples", "<u4"), ("asking", "<u4"), ("bytes", "<u8")])
_MOST = (2**32 - 1, 2**32 - 1, 2**63 - 1)

Histogram = NDArray[np.int64]
"""(routes * BINS, COLUMNS) counts."""
Bank = NDArray[np.int64]
"""(BUDGETS + 1, COLUMNS) counts of the samples that passed; the last row counts all."""


def bins_of(p_values: ArrayLike) -> NDArray[np.int64]:
    """Return the bin of each p-value; one that is not in (0, 1] is in the nearest bin, NaN in that of the smallest."""
    values = np.nan_to_num(np.asarray(p_values, dtype=np.float64), nan=0.0)
    # The last digits of a logarithm must not move a p-value on the edge of a bin.
    places = np.floor(-np.log10(np.clip(values, 10.0**-12, 1.0)) * BINS_PER_DECADE + 1e-9)
    return np.clip(places, 0, BINS - 1).astype(np.int64)


def cut_of(level: ArrayLike) -> NDArray[np.int64]:
    """Return the first bin that counts as at most a level; BINS for level 0. Levels are rounded to edges of bins."""
    levels = np.asarray(level, dtype=np.float64)
    rounded = np.rint(-np.log10(np.clip(levels, 10.0**-13, 1.0)) * BINS_PER_DECADE)
    return np.where(levels > 0, np.clip(rounded, 0, BINS), BINS).astype(np.int64)


def empty_histogram() -> Histogram:
    """Return a histogram without a sample."""
    return np.zeros((len(ROUTES) * BINS, COLUMNS), np.int64)


def empty_bank() -> Bank:
    """Return a bank without a sample."""
    return np.zeros((BUDGETS + 1, COLUMNS), np.int64)


def pack_histogram(histogram: Histogram) -> bytes:
    """Return the cells that are not empty."""
    cells = np.flatnonzero(histogram[:, SAMPLES])
    packed = np.empty(len(cells), _PACKED)
    packed["cell"] = cells
    for column, name in enumerate(("samples", "asking", "bytes")):
        packed[name] = np.minimum(histogram[cells, column], _MOST[column])
    return packed.tobytes()


def add_packed(histogram: Histogram, data: bytes) -> None:
    """Add packed cells to a histogram."""
    packed = np.frombuffer(data, _PACKED)
    cells = packed["cell"]
    for column, name in enumerate(("samples", "asking", "bytes")):
        histogram[cells, column] += packed[name].astype(np.int64)


def unpack_cells(data: bytes) -> tuple[NDArray[np.intp], NDArray[np.intp], dict[int, NDArray[np.float64]]]:
    """Return route, bin and counts of packed cells, each (cells,); counts of SAMPLES and ASKING.

    The data of several histograms may follow each other. The counts are whole numbers, as weights of np.bincount.
    """
    packed = np.frombuffer(data, _PACKED)
    routes, bins = np.divmod(packed["cell"].astype(np.intp), BINS)
    counts = {SAMPLES: packed["samples"].astype(np.float64), ASKING: packed["asking"].astype(np.float64)}
    return routes, bins, counts


def cells_in(data: bytes) -> int:
    """Return the number of packed cells."""
    return len(data) // _PACKED.itemsize


def pack_bank(bank: Bank) -> bytes:
    """Return the counts of a bank."""
    return bank.astype("<i8").tobytes()


def unpack_bank(data: bytes) -> Bank:
    """Return the bank of packed counts."""
    return np.frombuffer(data, "<i8").reshape(BUDGETS + 1, COLUMNS).astype(np.int64)


def unpack_banks(packed: Sequence[bytes]) -> NDArray[np.int64]:
    """Return (banks, BUDGETS + 1, COLUMNS) the banks of packed counts."""
    return np.frombuffer(b"".join(packed), "<i8").reshape(-1, BUDGETS + 1, COLUMNS).astype(np.int64)


class Buckets:
    """Token buckets of one device, one for each rate in BUDGETS_PER_S; they work as `edge.token_bucket`."""

    capacity: NDArray[np.float64] = np.maximum(BUDGETS_PER_S * BURST_S, 1.0)

    def __init__(self, at_s: float = -math.inf, levels: bytes = b"") -> None:
        """Begin full, or go on from the state of an earlier run."""
        self.at_s = at_s
        self._levels = np.frombuffer(levels, "<f8").copy() if levels else self.capacity.copy()

    def levels(self) -> bytes:
        """Return the tokens of each bucket, for a later run."""
        return self._levels.astype("<f8").tobytes()

    def spend(self, at_s: float) -> NDArray[np.bool_]:
        """Take a token for a sample captured at a time; return (budgets,) whether each bucket had one.

        A sample that is older than the one before it comes at the same time.
        """
        if at_s > self.at_s:
            if math.isfinite(self.at_s):
                np.minimum(self._levels + (at_s - self.at_s) * BUDGETS_PER_S, self.capacity, out=self._levels)
            self.at_s = at_s
        passes: NDArray[np.bool_] = self._levels >= 1.0
        self._levels -= passes
        return passes
