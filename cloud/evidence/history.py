"""Verdicts around one verdict: the scores of its source over time, and earlier ones with a like deviation."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.store.labels import Label
from cloud.store.review.signature import Vector, likeness, map_vector, share_vector
from cloud.store.verdict_columns import VerdictRow
from shared.samples import Decision

MAX_SIMILAR = 6
MIN_LIKENESS = 0.7  # cosine of two deviations


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
        found_likeness = likeness(own, other)
        if found_likeness >= MIN_LIKENESS:
            found.append(SimilarVerdict(each, labels.get(each.number), found_likeness))
    found.sort(key=lambda item: (-round(item.likeness, 1), item.label is None, -item.row.judged_at_s))
    return tuple(found[:MAX_SIMILAR])


def _vector(row: VerdictRow, maps: Mapping[int, NDArray[np.uint8]]) -> Vector | None:
    """Return the deviation as a vector of length 1, by name; None if nothing deviates."""
    cells = maps.get(row.number)
    return map_vector(cells) if cells is not None else share_vector(row.contributions)
