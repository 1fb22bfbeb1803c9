"""Evidence of a table's row: each feature beside its normal range and its values in similar normal rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.evidence.bundle_facts import BundleFacts
from cloud.evidence.standing import NormalRange, Side, normal_ranges

SIMILAR_ROWS = 25
EXPLAINED_FEATURES = 12  # that contribute most; the others get no values of similar rows
TYPICAL_QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of a row.

    `share` is its contribution, None if unknown. `typical`: 10 %, 50 % and 90 % quantile among the normal rows that
    are most like this one in the other features; None if they are unknown.
    """

    name: str
    value: float
    share: float | None
    normal: NormalRange | None
    typical: tuple[float, float, float] | None

    @property
    def side(self) -> Side:
        """Where the value lies relative to its normal range."""
        if self.normal is None:
            return Side.MISSING if np.isnan(self.value) else Side.UNKNOWN
        return self.normal.side(self.value)


def features_of(
    values: NDArray[np.float32], names: Sequence[str], shares: Mapping[str, float], facts: BundleFacts | None
) -> tuple[Feature, ...]:
    """Return the features of a row (features,): largest contributions first, then those farthest from normal."""
    labels = [names[index] if index < len(names) else f"feature {index + 1}" for index in range(len(values))]
    normal = normal_ranges(facts.ranges if facts is not None else None)
    order = sorted(
        range(len(values)), key=lambda place: _rank(place, labels[place], float(values[place]), shares, normal)
    )
    row = {label: float(value) for label, value in zip(labels, values, strict=True)}
    explained = [labels[index] for index in order[:EXPLAINED_FEATURES]]
    typical = _typical(row, explained, normal, facts) if facts is not None else {}
    return tuple(
        Feature(name, row[name], shares.get(name), normal.get(name), typical.get(name))
        for name in (labels[index] for index in order)
    )


def _rank(
    place: int, name: str, value: float, shares: Mapping[str, float], normal: Mapping[str, NormalRange]
) -> tuple[float, float, int]:
    """Return the place of a feature in the table, lowest first."""
    distance = normal[name].deviations(value) if name in normal and np.isfinite(value) else 0.0
    return -shares.get(name, 0.0), -distance, place


def _typical(
    row: Mapping[str, float], wanted: Sequence[str], normal: Mapping[str, NormalRange], facts: BundleFacts
) -> dict[str, tuple[float, float, float]]:
    """Return quantiles of each wanted feature over the normal rows nearest in all others, in standard deviations."""
    channels, rows = facts.spec.value_channels, facts.normal_rows
    if rows is None or len(rows) < SIMILAR_ROWS or rows.shape[1] != len(channels) or len(channels) < 2:
        return {}
    if not set(channels) <= set(row) or not set(channels) <= set(normal):
        return {}
    own = np.array([row[name] for name in channels])
    scale = np.array([normal[name].scale or 1.0 for name in channels])
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.square(np.clip((rows - own) / scale, -1e6, 1e6))
    squares = np.nan_to_num(squares, nan=1.0)  # of a missing value nothing is known
    total, found = squares.sum(axis=1), {}
    for name in wanted:
        if name not in channels:
            continue
        place = channels.index(name)
        nearest = np.argpartition(total - squares[:, place], SIMILAR_ROWS - 1)[:SIMILAR_ROWS]
        column = rows[nearest, place]
        column = column[np.isfinite(column)]
        if len(column):
            low, middle, high = np.quantile(column, TYPICAL_QUANTILES).tolist()
            found[name] = (low, middle, high)
    return found
