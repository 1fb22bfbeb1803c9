"""Bounded memory of the judged samples of one source and bundle, and of the sent ones without a verdict."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from edge.routing.repeats.normals import NormalSample
from shared.samples import Decision, Verdict

MAX_JUDGED = MAX_PENDING = 256
P_VALUE_RATIO = 0.5  # of a copy to its prototype, at least
NORMAL_RATIO = 0.5  # of the radius of a defect to its distance from the nearest normal sample
CLEARED_RADIUS = 1.0  # usual distance between neighbours among normal samples
CLEARED_P_VALUE = 0.05  # of the service, at least; a smaller one is too near to its threshold
EVERY = 20  # one in this many copies of a prototype is sent
PAUSE_S = 600.0  # without a copy of a defect, after which the next one is sent: a new episode


class PrototypeKind(IntEnum):
    """Verdict on a prototype; the numbers are those of its snapshot."""

    CLEARED = 1  # judged normal
    CONDEMNED = 2  # judged anomalous


@dataclass(frozen=True, slots=True, eq=False)
class SentSample:
    """Sample that was sent and has no verdict yet.

    `value`: (dim,) embedding. `since_s`: time when it was sent. `copy_of`: id of the prototype that it is a near copy
    of, empty if there is none.
    """

    value: NDArray[np.float32]
    p_value: float
    since_s: float
    sample_id: bytes
    copy_of: bytes = b""


@dataclass(slots=True, eq=False)
class Prototype:
    """Judged sample whose near copies are known. `value`: (dim,) embedding.

    `since_s`: time of the last verdict that confirms it. `radius`: largest distance of a near copy. `in_turn`: copies
    held since the last one was sent. `used_at_s`: time of the last copy that was held or sent.
    """

    value: NDArray[np.float32]
    p_value: float
    since_s: float
    sample_id: bytes
    kind: PrototypeKind
    used_at_s: float
    in_turn: int = 0
    radius: float = 0.0

    def sends_next(self, in_turn: int, pause_s: float) -> bool:
        """Return whether the next copy is sent after `in_turn` held copies and a pause."""
        is_new_episode = self.kind is PrototypeKind.CONDEMNED and pause_s >= PAUSE_S
        return in_turn >= EVERY - 1 or is_new_episode


class PrototypeMemory:
    """Prototypes and pending samples, at most MAX_JUDGED and MAX_PENDING; the longest unused are forgotten.

    Not safe to use from several threads.
    """

    def __init__(self, normals: NormalSample, expires_s: float, *, keeps_cleared: bool = True) -> None:
        """`keeps_cleared`: the embedding distinguishes two samples that were judged normal."""
        self.normals, self.expires_s, self._keeps_cleared = normals, expires_s, keeps_cleared
        self._by_id: dict[bytes, Prototype] = {}
        self._pending: dict[bytes, SentSample] = {}
        self._copies: dict[bytes, SentSample] = {}  # pending ones that are copies of a prototype
        self.newest_id = b""  # of the sent samples
        self._lost = b"", b""  # ids between these may be of sent copies that are not known
        self._scale_version = -1
        self._stacked: tuple[list[Prototype], NDArray[np.float32]] | None = None

    def __iter__(self) -> Iterator[Prototype]:
        return iter(list(self._by_id.values()))

    def defect_radius(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the distance (n,) up to which a sample is a near copy of a defect, given embeddings (n, dim).

        It is half of the distance to the nearest normal sample.
        """
        return NORMAL_RATIO * self.normals.nearest(values)

    def match(self, values: NDArray[np.float32], p_values: NDArray[np.float64], now_s: float) -> list[Prototype | None]:
        """Return the prototype of each sample, None where it is no near copy, or is one of both kinds.

        `values`: (n, dim). `p_values`: (n,). A copy is within the prototype's radius and not much more suspicious.
        """
        self._expire(now_s)
        known, stacked = self._usable()
        if not known:
            return [None] * len(values)
        near, distances = self._near(values, p_values, known, stacked)
        kinds = np.array([item.kind for item in known])
        is_both = (near & (kinds == PrototypeKind.CLEARED)).any(axis=1) & (
            near & (kinds == PrototypeKind.CONDEMNED)
        ).any(axis=1)
        places = np.where(near, distances, np.inf).argmin(axis=1)
        found = near.any(axis=1) & ~is_both
        return [
            known[place] if is_found else None for place, is_found in zip(places.tolist(), found.tolist(), strict=True)
        ]

    def remember(self, prototype: Prototype) -> None:
        """Add a prototype, and forget the longest unused one if there are too many."""
        if self.normals.is_ready:
            prototype.radius = self._radii([prototype], prototype.value[None])[0]
        self._by_id[prototype.sample_id] = prototype
        self._stacked = None
        if len(self._by_id) > MAX_JUDGED:
            self._forget(min(self._by_id.values(), key=lambda item: item.used_at_s))

    def note_sent(self, sample: SentSample) -> None:
        """Keep a sent sample until its verdict, which adds, confirms or removes a prototype."""
        self.newest_id = max(self.newest_id, sample.sample_id)
        kept = self._copies if sample.copy_of else self._pending
        kept[sample.sample_id] = sample
        while len(kept) > MAX_PENDING:
            self._drop(kept, next(iter(kept.values())))

    def restore(self, prototypes: Sequence[Prototype], sent: Sequence[SentSample], lost: tuple[bytes, bytes]) -> None:
        """Go on from an earlier run. `lost`: samples with ids between these were sent after the snapshot."""
        for prototype in prototypes:
            self.remember(prototype)
        for sample in sent:
            self.note_sent(sample)
        self.newest_id, self._lost = lost[0], lost

    def judge(self, verdicts: Sequence[Verdict], now_s: float) -> bool:
        """Add prototypes by verdicts on sent samples; return whether anything changed.

        Verdicts on copies confirm or remove their prototype. Any verdict but a normal one with a high p-value removes
        the CLEARED prototypes near the sample, too. If the sample was sent after the last snapshot of an earlier run,
        it removes all of them.
        """
        has_changed = False
        for verdict in verdicts:
            key, kind = verdict.sample_id.bytes, self._kind_of(verdict)
            sent, known = self._pending.pop(key, None) or self._copies.pop(key, None), self._by_id.get(key)
            if known is not None:  # it is judged again
                self._forget(known)
                sent = SentSample(known.value, known.p_value, now_s, key)
            if sent is None:
                if kind is not PrototypeKind.CLEARED and self._lost[0] < key < self._lost[1]:
                    has_changed |= self._forget_cleared()
                continue
            has_changed = True
            if kind is not PrototypeKind.CLEARED:
                self._forget_cleared(near=sent.value)
            copied = self._by_id.get(sent.copy_of)
            if copied is not None and kind is copied.kind:
                copied.since_s = now_s
                continue
            if copied is not None:
                self._forget(copied)
            if kind is not None:
                self._learn(sent, kind, now_s)
        return has_changed

    def counts(self) -> dict[PrototypeKind, int]:
        """Return the number of prototypes of each kind."""
        kinds = [item.kind for item in self._by_id.values()]
        return {kind: kinds.count(kind) for kind in PrototypeKind}

    def pending(self) -> list[SentSample]:
        """Return the sent samples that wait for their verdict."""
        return [*self._pending.values(), *self._copies.values()]

    def _learn(self, sample: SentSample, kind: PrototypeKind, now_s: float) -> None:
        """Make a prototype of a judged sample, or confirm the one of this kind that it is a near copy of."""
        alike = [item for item in self._by_id.values() if item.kind is kind]
        if alike and self.normals.is_ready:
            stacked = np.stack([item.value for item in alike])
            near, distances = self._near(sample.value[None], np.array([sample.p_value]), alike, stacked)
            if near.any():  # samples of a burst that were sent before the first verdict are one prototype
                alike[int(np.where(near, distances, np.inf).argmin())].since_s = now_s
                return
        self.remember(Prototype(sample.value, sample.p_value, now_s, sample.sample_id, kind, used_at_s=now_s))

    def _near(
        self,
        values: NDArray[np.float32],
        p_values: NDArray[np.float64],
        known: Sequence[Prototype],
        stacked: NDArray[np.float32],
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Return whether samples (n,) are near copies of prototypes (m,), and the distances, both (n, m)."""
        distances = self.normals.distances(values, stacked)
        lowest = P_VALUE_RATIO * np.array([item.p_value for item in known])
        return (distances <= np.array([item.radius for item in known])) & (p_values[:, None] >= lowest), distances

    def _usable(self) -> tuple[list[Prototype], NDArray[np.float32]]:
        """Return the prototypes and their embeddings."""
        if self._scale_version != self.normals.version or self._stacked is None:
            every = list(self._by_id.values())
            stacked = np.stack([item.value for item in every]) if every else np.zeros((0, 0), np.float32)
            if every:
                for item, radius in zip(every, self._radii(every, stacked), strict=True):
                    item.radius = radius
            self._stacked, self._scale_version = (every, stacked), self.normals.version
        return self._stacked

    def _radii(self, prototypes: Sequence[Prototype], values: NDArray[np.float32]) -> list[float]:
        radii = self.defect_radius(values).tolist()
        return [
            CLEARED_RADIUS if item.kind is PrototypeKind.CLEARED else radius
            for item, radius in zip(prototypes, radii, strict=True)
        ]

    def _expire(self, now_s: float) -> None:
        for item in list(self._by_id.values()):
            if not 0 <= now_s - item.since_s <= self.expires_s:  # the clock may have been set back
                self._forget(item)
        for kept in (self._pending, self._copies):
            for sent in list(kept.values()):
                if not 0 <= now_s - sent.since_s <= self.expires_s:
                    self._drop(kept, sent)

    def _drop(self, kept: dict[bytes, SentSample], sent: SentSample) -> None:
        """Drop a sample without a verdict; the prototype that it is a copy of can no longer be checked by it."""
        del kept[sent.sample_id]
        copied = self._by_id.get(sent.copy_of)
        if copied is not None and copied.kind is PrototypeKind.CLEARED:
            self._forget(copied)

    def _forget_cleared(self, near: NDArray[np.float32] | None = None) -> bool:
        """Forget all CLEARED prototypes, or those whose radius reaches `near` (dim,); return whether there were any."""
        cleared = [item for item in self._by_id.values() if item.kind is PrototypeKind.CLEARED]
        if cleared and near is not None:
            distances = self.normals.distances(near[None], np.stack([item.value for item in cleared]))[0]
            cleared = [
                item for item, distance in zip(cleared, distances.tolist(), strict=True) if distance <= item.radius
            ]
        for item in cleared:
            self._forget(item)
        return bool(cleared)

    def _forget(self, prototype: Prototype) -> None:
        self._by_id.pop(prototype.sample_id, None)
        self._stacked = None

    def _kind_of(self, verdict: Verdict) -> PrototypeKind | None:
        """Return the kind of a judged sample, None for one that is not remembered."""
        if verdict.decision is Decision.ANOMALOUS:
            return PrototypeKind.CONDEMNED
        is_clear = verdict.decision is Decision.NORMAL and (verdict.p_value or 0.0) >= CLEARED_P_VALUE
        return PrototypeKind.CLEARED if is_clear and self._keeps_cleared else None
