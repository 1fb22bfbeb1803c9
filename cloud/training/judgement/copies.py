"""Exact copies among the normal samples, by a hash of their values."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.training.judgement.figures import Copies


def count_copies(train: NDArray[Any], held_out: NDArray[Any], *, has_time: bool) -> Copies:
    """Return the number of exact copies among the normal samples (n, ...).

    `has_time`: the first axis of a sample is time. A machine that stands still gives equal windows or clips without
    any copy, so those in which nothing changes do not count. Overlapping windows differ and do not count either.
    """
    learned, judged = list(_hashes(train, has_time)), list(_hashes(held_out, has_time))
    known = set(learned)
    return Copies(
        held_out=sum(each in known for each in judged),
        normals=len(learned) + len(judged) - len(known.union(judged)),
    )


def _hashes(samples: NDArray[Any], has_time: bool) -> Iterator[bytes]:
    """Yield a hash of each sample that counts. Missing values are equal, and so are 0 and -0."""
    for sample in samples:
        values = np.ascontiguousarray(sample)
        if values.dtype.kind == "f":
            values = values + 0.0
            values[np.isnan(values)] = np.nan
        if not (has_time and np.array_equal(values[1:], values[:-1], equal_nan=values.dtype.kind == "f")):
            yield hashlib.blake2b(values.tobytes(), digest_size=16).digest()
