"""Bounded memory of prototypes: samples of one source and bundle that were sent, with what the service said of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from edge.routing.repeats.normals import NormalSample
from shared.samples import Decision, Verdict

MAX_JUDGED = MAX_WAITING = 256
P_VALUE_RATIO = 0.5  # of a copy to its prototype, at least
NORMAL_RATIO = 0.5  # of the reach of a defect to its distance from the nearest normal sample
CLEARED_REACH = 1.0  # usual distance between neighbours among normal samples
CLEARED_P_VALUE = 0.05  # of the service, at least; a smaller one is too near to its threshold
FEW = 3  # samples sent of a prototype that waits for its verdict
WAIT_S = 300.0  # for a verdict; copies of a prototype that waits for longer are sent
EVERY = 20  # of the copies of a defect one in this many is sent
PAUSE_S = 600.0  # without a copy of a defect, after which the next one is sent: a new episode


class PrototypeKind(IntEnum):
    """State of a prototype; the numbers are those of its snapshot."""

    WAITING = 0
    CLEARED = 1
    CONDEMNED = 2


@dataclass(slots=True, eq=False)
class Prototype:
    """Sample whose near copies are known. `value`: (dim,) embedding.

    `since_s`: when it was sent, later when it was last confirmed. `reach`: distance of a near copy at most.
    `sent`: samples sent of it, itself included. `in_turn`: copies held since the last one was sent.
    """

    value: NDArray[np.float32]
    p_value: float
    since_s: float
    sample_id: bytes = b""
    kind: PrototypeKind = PrototypeKind.WAITING
    reach: float = 0.0
    sent: int = 1
    in_turn: int = 0
    used_at_s: float = 0.0

    def sends_next(self, sent: int, in_turn: int, pause_s: float) -> bool:
        """Return whether the next copy is sent after `sent` samples, `in_turn` held copies and a pause."""
        if self.kind is PrototypeKind.CLEARED:
            return False
        if self.kind is PrototypeKind.WAITING and sent < FEW:
            return True
        return in_turn >= EVERY - 1 or pause_s >= PAUSE_S


class PrototypeMemory:
    """Prototypes, at most MAX_JUDGED and MAX_WAITING; of more the longest unused are forgotten.

    Not safe to use from several threads.
    """

    def __init__(self, normals: NormalSample, expires_s: float, *, keeps_cleared: bool = True) -> None:
        """`keeps_cleared`: the embedding tells two cleared samples apart."""
        self.normals, self.expires_s, self._keeps_cleared = normals, expires_s, keeps_cleared
        self._by_id: dict[bytes, Prototype] = {}
        self._copies: dict[bytes, bytes] = {}  # prototype of each sent copy that waits for its verdict
        self._scale_version = -1
        self._stacked: tuple[list[Prototype], NDArray[np.float32]] | None = None

    def __iter__(self) -> Iterator[Prototype]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def defect_reach(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the distance (n,) up to which a sample is a near copy of a defect, given embeddings (n, dim).

        It is half of the distance to the nearest normal sample.
        """
        return NORMAL_RATIO * self.normals.nearest(values)

    def match(self, values: NDArray[np.float32], p_values: NDArray[np.float64], now_s: float) -> list[Prototype | None]:
        """Return the prototype of each sample, None where it is no near copy, or is one of both kinds.

        `values`: (n, dim). `p_values`: (n,). A copy is within the prototype's reach and not much more suspicious.
        """
        self._expire(now_s)
        usable, stacked = self._usable(now_s)
        if not usable:
            return [None] * len(values)
        distances = self.normals.distances(values, stacked)
        lowest = P_VALUE_RATIO * np.array([item.p_value for item in usable])
        near = (distances <= np.array([item.reach for item in usable])) & (p_values[:, None] >= lowest)
        kinds = np.array([item.kind for item in usable])
        is_both = (near & (kinds == PrototypeKind.CLEARED)).any(axis=1) & (
            near & (kinds == PrototypeKind.CONDEMNED)
        ).any(axis=1)
        places = np.where(near, distances, np.inf).argmin(axis=1)
        found = near.any(axis=1) & ~is_both
        return [
            usable[place] if is_found else None for place, is_found in zip(places.tolist(), found.tolist(), strict=True)
        ]

    def remember(self, prototype: Prototype) -> None:
        """Add a prototype, and forget the longest unused one of its kind if there are too many."""
        self._by_id[prototype.sample_id] = prototype
        self._stacked = None
        waits = prototype.kind is PrototypeKind.WAITING
        alike = [item for item in self._by_id.values() if (item.kind is PrototypeKind.WAITING) is waits]
        if len(alike) > (MAX_WAITING if waits else MAX_JUDGED):
            self._forget(min(alike, key=lambda item: item.used_at_s))

    def note_copy(self, sample_id: bytes, prototype: Prototype) -> None:
        """Note that a copy of a prototype was sent; its verdict confirms or removes the prototype."""
        self._copies[sample_id] = prototype.sample_id
        while len(self._copies) > MAX_WAITING:
            del self._copies[next(iter(self._copies))]

    def judge(self, verdicts: Sequence[Verdict], now_s: float) -> None:
        """Turn samples into prototypes by their verdicts; verdicts on copies confirm or remove their prototype."""
        for verdict in verdicts:
            key, kind = verdict.sample_id.bytes, self._kind_of(verdict)
            copied = self._by_id.get(self._copies.pop(key, b""))
            if copied is not None and copied.kind is not PrototypeKind.WAITING and kind is not None:
                if kind is copied.kind:
                    copied.since_s = now_s
                else:
                    self._forget(copied)
            own = self._by_id.get(key)
            if own is None:
                continue
            self._forget(own)
            if kind is not None:
                own.kind, own.since_s = kind, now_s
                self.remember(own)

    def counts(self) -> dict[PrototypeKind, int]:
        """Return the number of prototypes of each kind."""
        kinds = [item.kind for item in self._by_id.values()]
        return {kind: kinds.count(kind) for kind in PrototypeKind}

    def _usable(self, now_s: float) -> tuple[list[Prototype], NDArray[np.float32]]:
        """Return the prototypes that may have copies, and their embeddings."""
        if self._scale_version != self.normals.version or self._stacked is None:
            every = list(self._by_id.values())
            stacked = np.stack([item.value for item in every]) if every else np.zeros((0, 0), np.float32)
            if every:
                for item, reach in zip(every, self.defect_reach(stacked).tolist(), strict=True):
                    item.reach = CLEARED_REACH if item.kind is PrototypeKind.CLEARED else reach
            self._stacked, self._scale_version = (every, stacked), self.normals.version
        every, stacked = self._stacked
        fresh = [item.kind is not PrototypeKind.WAITING or now_s - item.since_s <= WAIT_S for item in every]
        if all(fresh):
            return every, stacked
        return [item for item, is_fresh in zip(every, fresh, strict=True) if is_fresh], stacked[np.array(fresh)]

    def _expire(self, now_s: float) -> None:
        for item in list(self._by_id.values()):
            if not 0 <= now_s - item.since_s <= self.expires_s:  # the clock may have been set back
                self._forget(item)

    def _forget(self, prototype: Prototype) -> None:
        self._by_id.pop(prototype.sample_id, None)
        self._stacked = None

    def _kind_of(self, verdict: Verdict) -> PrototypeKind | None:
        """Return the kind of a judged sample, None for one that is not remembered."""
        if verdict.decision is Decision.ANOMALOUS:
            return PrototypeKind.CONDEMNED
        is_clear = verdict.decision is Decision.NORMAL and (verdict.p_value or 0.0) >= CLEARED_P_VALUE
        return PrototypeKind.CLEARED if is_clear and self._keeps_cleared else None
