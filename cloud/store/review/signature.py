"""Signature of a deviation, by which verdicts are compared: a vector of length 1, sparse, by name.

For pictures and clips it is the anomaly map (of a clip's last frame) pooled to a grid of GRID x GRID cells, relative to
its median: the level of the whole picture says nothing about the place. Otherwise it is made of the contributions of
features or channels; a name carries the side on which its readings leave their normal range, where that is known.
Signatures of different versions are never compared.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

VERSION = 1
GRID = 8
MAX_NAMES = GRID * GRID
Vector: TypeAlias = Mapping[str, float]
Sides: TypeAlias = Mapping[str, str]
"""Sign of a channel's deviation by name: "+" above its normal range, "-" below it; no entry within it."""


@dataclass(frozen=True, slots=True)
class Signature:
    """Signature of one verdict, the same for all versions of a bundle."""

    bundle_name: str
    modality: str
    vector: Vector
    version: int = VERSION


def map_vector(cells: NDArray[np.uint8]) -> Vector | None:
    """Return the vector of an anomaly map (height, width); None if no place stands out."""
    small = cv2.resize(cells, (GRID, GRID), interpolation=cv2.INTER_AREA).astype(np.float64)
    excess = np.clip(small - np.median(small), 0.0, None).ravel()
    return _unit({str(place): value for place, value in enumerate(excess.tolist()) if value > 0})


def share_vector(contributions: Iterable[tuple[str, float]], sides: Sides | None = None) -> Vector | None:
    """Return the vector of contributions; None if nothing deviates. The MAX_NAMES largest ones count."""
    values = [(name, share) for name, share in contributions if math.isfinite(share) and share > 0]
    values.sort(key=lambda item: -item[1])
    return _unit({(sides or {}).get(name, "") + name: share for name, share in values[:MAX_NAMES]})


def likeness(one: Vector, other: Vector) -> float:
    """Return the cosine of two vectors, in [0, 1]."""
    short, long = (one, other) if len(one) <= len(other) else (other, one)
    return min(1.0, sum(value * long.get(name, 0.0) for name, value in short.items()))


def bundle_name(bundle_id: str) -> str:
    """Return the name in the id of a bundle (name-version-hash); another text stays as it is."""
    parts = bundle_id.rsplit("-", 2)
    return parts[0] if len(parts) == 3 and parts[1].isdigit() else bundle_id


def _unit(values: Mapping[str, float]) -> Vector | None:
    length = math.sqrt(math.fsum(value * value for value in values.values()))
    return {name: round(value / length, 5) for name, value in values.items()} if length > 0 else None
