"""Verdicts around one verdict: the scores of its source over time, and earlier ones with a like deviation."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cloud.store.labels import Label
from cloud.store.verdict_columns import VerdictRow
from shared.samples import Decision

MAX_SIMILAR = 6
MIN_LIKENESS = 0.7  # cosine of two deviations
_MAP_SIDE = 8
Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SourceVerdict:
    """One verdict of the source; `p_value` is None where the cloud could not judge."""

    sample_id: uuid.UUID
    judged_at_s: float
    p_value: float | None
    decision: Decision
    label: Label | None
    is_this: bool


@dataclass(frozen=True, slots=True)
class SimilarVerdict:
    """An earlier verdict of the device with a like deviation; `likeness` in 0 to 1."""

    row: VerdictRow
    label: Label | None
    likeness: float


def history_of(row: VerdictRow, around: Sequence[VerdictRow], labels: Mapping[int, Label]) -> tuple[SourceVerdict, ...]:
    """Return the verdicts of the source of `row` among `around` and `row` itself, oldest first."""
    own = {each.number: each for each in (*around, row) if each.source_id == row.source_id}
    return tuple(
        SourceVerdict(
            each.sample_id,
            each.judged_at_s,
            each.p_value,
            each.decision,
            labels.get(each.number),
            each.number == row.number,
        )
        for each in sorted(own.values(), key=lambda each: (each.judged_at_s, each.number))
    )


def similar_items(
    row: VerdictRow,
    candidates: Sequence[VerdictRow],
    maps: Mapping[int, NDArray[np.uint8]],
    labels: Mapping[int, Label],
) -> tuple[SimilarVerdict, ...]:
    """Return the candidates whose deviation is most like that of `row`, labelled ones first among equals.

    The deviation is the anomaly map of a picture, and otherwise the contributions of features or channels.
    """
    own = _vector(row, maps)
    if own is None:
        return ()
    found = []
    for each in candidates:
        other = _vector(each, maps)
        if each.number == row.number or other is None or other.keys().isdisjoint(own):
            continue
        likeness = sum(own[name] * other.get(name, 0.0) for name in own)
        if likeness >= MIN_LIKENESS:
            found.append(SimilarVerdict(each, labels.get(each.number), min(1.0, likeness)))
    found.sort(key=lambda item: (-round(item.likeness, 1), item.label is None, -item.row.judged_at_s))
    return tuple(found[:MAX_SIMILAR])


def _vector(row: VerdictRow, maps: Mapping[int, NDArray[np.uint8]]) -> dict[str, float] | None:
    """Return the deviation as a vector of length 1, by name; None if nothing deviates."""
    values = {name: share for name, share in row.contributions if np.isfinite(share) and share > 0}
    cells = maps.get(row.number)
    if cells is not None:
        small = cv2.resize(cells, (_MAP_SIDE, _MAP_SIDE), interpolation=cv2.INTER_AREA).astype(np.float64)
        # Relative to the median: the level of the whole picture says nothing about the place.
        excess = np.clip(small - np.median(small), 0.0, None).ravel()
        values = {str(place): value for place, value in enumerate(excess.tolist()) if value > 0}
    length = float(np.sqrt(sum(value * value for value in values.values())))
    return {name: value / length for name, value in values.items()} if length > 0 else None
