"""Active mutes, and the one that hides a verdict: pure matching, and a reader that keeps what it has read.

A verdict is compared with the mutes of its bundle name, modality and signature version alone, by scope. A site has at
most MAX_MUTES active ones, so a verdict is compared with at most 2 * MAX_MUTES, as one product of matrices a scope.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.review.grouping import Asking
from cloud.store.review.signature import Vector
from cloud.store.schema import mutes

MAX_MUTES = 100  # active ones of a site, and of the scope of all sites
FAR_BELOW = 10.0  # a verdict whose p-value is this many times below the lowest of the pattern is not hidden


class MuteScope(StrEnum):
    """Verdicts that a mute may hide."""

    SOURCE = "source"
    DEVICE = "device"
    SITE = "site"
    BUNDLE = "bundle"
    """Those of a bundle at all sites."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Pattern of a mute, and where it counts. `p_value`: the lowest of the item that it was made from."""

    scope: MuteScope
    site: str
    device_id: str
    source_id: str
    bundle_name: str
    modality: str
    version: int
    vector: Vector
    likeness: float
    p_value: float

    @property
    def place(self) -> "_Place":
        """Kind of signature, and the part of the fleet."""
        kind = (self.bundle_name, self.modality, self.version)
        return (*kind, self.scope.value, self.site, self.device_id, self.source_id)

    def lowest_p_value(self) -> float:
        """Return the p-value below which a verdict is shown nevertheless."""
        return self.p_value / FAR_BELOW


_Place: TypeAlias = tuple[str, str, int, str, str, str, str]


@dataclass(frozen=True, slots=True)
class ActiveMute:
    """A mute that hides verdicts until `expires_at_s`."""

    number: int
    pattern: Pattern
    expires_at_s: float


class MuteIndex:
    """Active mutes by place; the oldest one that fits hides a verdict."""

    def __init__(self, active: Iterable[ActiveMute], now_s: float = 0.0) -> None:
        self._now_s = now_s
        by_place: dict[_Place, list[ActiveMute]] = {}
        self._count = 0
        for mute in active:
            by_place.setdefault(mute.pattern.place, []).append(mute)
            self._count += 1
        self._tables: dict[_Place, _Table] = {}
        self._by_place = by_place

    def __len__(self) -> int:
        """Return the number of mutes."""
        return self._count

    def at(self, now_s: float) -> "MuteIndex":
        """Let mutes that end by this time hide nothing more; return the index itself."""
        self._now_s = now_s
        return self

    def find(self, asking: Asking, site: str) -> int | None:
        """Return the number of the mute that hides a verdict of a device of this site; None if none does."""
        signature = asking.signature
        if signature is None:
            return None
        kind = (signature.bundle_name, signature.modality, signature.version)
        found = [
            number
            for scope, *where in (
                (MuteScope.SOURCE, site, asking.device_id, asking.source_id),
                (MuteScope.DEVICE, site, asking.device_id, ""),
                (MuteScope.SITE, site, "", ""),
                (MuteScope.BUNDLE, "", "", ""),
            )
            if (table := self._table((*kind, scope.value, where[0], where[1], where[2]))) is not None
            and (number := table.first(signature.vector, asking.p_value, self._now_s)) is not None
        ]
        return min(found, default=None)

    def _table(self, place: _Place) -> "_Table | None":
        if place not in self._tables and place in self._by_place:
            self._tables[place] = _Table(self._by_place[place])
        return self._tables.get(place)


class _Table:
    """Mutes of one place as a matrix (mutes, names)."""

    def __init__(self, active: Sequence[ActiveMute]) -> None:
        ordered = sorted(active, key=lambda mute: mute.number)
        names = sorted({name for mute in ordered for name in mute.pattern.vector})
        self._columns = {name: column for column, name in enumerate(names)}
        self._vectors = np.zeros((len(ordered), len(names)))
        for row, mute in enumerate(ordered):
            for name, value in mute.pattern.vector.items():
                self._vectors[row, self._columns[name]] = value
        self._numbers = [mute.number for mute in ordered]
        self._likeness = np.array([mute.pattern.likeness for mute in ordered])
        self._lowest = np.array([mute.pattern.lowest_p_value() for mute in ordered])
        self._ends_s = np.array([mute.expires_at_s for mute in ordered])

    def first(self, vector: Vector, p_value: float, now_s: float) -> int | None:
        """Return the number of the oldest mute that fits; None if none does."""
        known = [(self._columns[name], value) for name, value in vector.items() if name in self._columns]
        if not known:
            return None
        columns, values = zip(*known, strict=True)
        likeness: NDArray[np.float64] = self._vectors[:, list(columns)] @ np.array(values)
        fits = (likeness >= self._likeness - 1e-6) & (p_value >= self._lowest) & (self._ends_s > now_s)
        places = np.flatnonzero(fits)
        return self._numbers[int(places[0])] if len(places) else None


class MuteReader:
    """Active mutes of a store; they are read again after one was made, ended or resumed by any process."""

    def __init__(self) -> None:
        self._numbers: set[int] = set()
        self._index = MuteIndex(())

    async def active(self, connection: AsyncConnection, now_s: float) -> MuteIndex:
        """Return the mutes that are active now; of those that are known already only the numbers are read."""
        is_active = (mutes.c.ended_at_s.is_(None), mutes.c.expires_at_s > now_s)
        numbers = set((await connection.execute(select(mutes.c.number).where(*is_active))).scalars())
        if numbers != self._numbers:
            rows = (await connection.execute(select(mutes).where(*is_active))).mappings()
            self._index = MuteIndex(ActiveMute(row["number"], pattern_of_row(row), row["expires_at_s"]) for row in rows)
            self._numbers = numbers
        return self._index.at(now_s)


def pattern_of_row(row: Mapping[Any, Any]) -> Pattern:
    """Return the pattern in a row of `mutes`."""
    values = {name: row[name] for name in Pattern.__dataclass_fields__}
    return Pattern(**(values | {"scope": MuteScope(values["scope"])}))
