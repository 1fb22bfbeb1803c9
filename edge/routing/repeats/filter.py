"""Filter of near copies for one source: marks them before the router decides, and learns from what was sent.

If a comparison is not possible, samples are sent: without prototypes of the bundle, without enough normal samples, for
samples without a score, and after an error.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.routing.packing import Packed
from edge.routing.repeats.counts import CopyCounts
from edge.routing.repeats.embedding import Embedded, embed
from edge.routing.repeats.memory import EVERY, Prototype, PrototypeKind, PrototypeMemory, SentSample
from edge.routing.repeats.normals import NormalSample
from edge.routing.repeats.snapshot import RepeatSnapshot, load_snapshot, save_snapshot
from edge.routing.router import Routing
from edge.screener import ScreenedBatch, Screener
from edge.sealing import Seal
from edge.settings import RouterSettings
from shared.logs import EventLog, Throttle
from shared.modalities import sample_type
from shared.samples import Verdict
from shared.status import NearCopies, RepeatStatus

log = EventLog("repeats")


@dataclass(frozen=True, slots=True)
class Marked:
    """Near copies in a batch of `kept` samples.

    `cleared`: (kept,) bool, copies of samples judged normal, which count as accepted. `stays`: (kept,) bool, other
    copies, which are suspicious and stay on the device unless they are drawn at random. `in_turn`: (kept,) bool, copies
    of samples judged normal that are sent in turn.
    `places`: (s,) of the suspicious samples, `p_values` (s,) and `values` (s, dim) their p-values and embeddings, and
    `prototypes` (s) what each is a copy of.
    """

    cleared: NDArray[np.bool_]
    stays: NDArray[np.bool_]
    in_turn: NDArray[np.bool_]
    places: NDArray[np.intp]
    p_values: NDArray[np.float64]
    values: NDArray[np.float32]
    prototypes: Sequence[Prototype | None]


class RepeatFilter:
    """Near copies of one source. `mark` and `settle` are for its own thread, the rest for any."""

    def __init__(
        self,
        source_id: str,
        path: Path,
        settings: RouterSettings,
        seal: Seal | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`path`: of the snapshot. `seal`: key to encrypt it with; None for no encryption."""
        self._source_id, self._path, self._settings, self._seal, self._clock = source_id, path, settings, seal, clock
        self._lock = threading.Lock()
        self._throttle = Throttle()
        self._bundle_id = ""
        self._memory: PrototypeMemory | None = None
        self.counts = CopyCounts()
        self._changed = False
        self._held = 0

    @property
    def is_on(self) -> bool:
        """Whether near copies may stay on the device."""
        return self._settings.repeats == "hold" and self._settings.mode == "cascade"

    def begin(self, screener: Screener) -> None:
        """Go on from the snapshot, if it is of the screener's bundle."""
        with self._lock:
            self._bundle_id, self._memory = screener.bundle_id, None
            if not self.is_on:
                return
            found = load_snapshot(self._path, self._seal)
            if found is None:
                return
            self.counts.restore(found.counts)
            if found.bundle_id == screener.bundle_id:
                keeps_cleared = sample_type(screener.modality).has_vectors
                self._memory = found.memory(self._settings.repeats_expire_s, keeps_cleared=keeps_cleared)

    def mark(self, screened: ScreenedBatch, screener: Screener, forward_p_value: float) -> Marked | None:
        """Return the near copies among the suspicious samples of a batch; None if there is nothing to compare."""
        if not self.is_on or screened.unscored:
            return None
        try:
            places = np.flatnonzero(screened.p_values <= forward_p_value)
            if not len(places):
                return None
            embedded = embed(screened, screener, places)
            with self._lock:
                memory = self._memory_for(screener, embedded)
                if not memory.normals.is_ready:
                    return None
                return self._mark(memory, places, embedded.values, screened.p_values)
        except Exception as error:  # a copy too many is sent rather than an anomaly lost
            if self._throttle.allow("mark"):
                log.error("copies_not_marked", source=self._source_id, error=repr(error), advice="all are sent")
            return None

    def settle(self, marked: Marked | None, packed: Packed, routing: Routing) -> NDArray[np.bool_] | None:
        """Remember what was sent of a marked batch; return the copies that stayed, (kept,) bool; None without marks."""
        if marked is None:
            return None
        by_rule = marked.stays if routing.cleared is None else marked.stays | routing.cleared
        held = np.zeros(len(marked.stays), dtype=bool)
        with self._lock:
            memory, now_s = self._memory, self._clock()
            if memory is None:
                return held
            for number, (place, prototype) in enumerate(zip(marked.places.tolist(), marked.prototypes, strict=True)):
                sample_id = packed.sample_ids.get(place)
                if sample_id is not None:
                    value, p_value = marked.values[number].copy(), float(marked.p_values[number])
                    copy_of = prototype.sample_id if prototype is not None else b""
                    memory.note_sent(SentSample(value, p_value, now_s, sample_id.bytes, copy_of))
                if prototype is None:
                    continue
                if sample_id is not None:
                    prototype.used_at_s, prototype.in_turn = now_s, 0
                elif by_rule[place]:
                    prototype.used_at_s, prototype.in_turn = now_s, prototype.in_turn + 1
                    self.counts.add(prototype.sample_id, now_s)
                    held[place] = True
                else:  # the budget refused its turn, so the next copy is due
                    prototype.in_turn = EVERY
            self._changed = True
            self._held += int(np.count_nonzero(held))
        return held

    def offer(self, screened: ScreenedBatch, normal: NDArray[np.bool_], screener: Screener) -> None:
        """Take a random part of the `normal` samples, (kept,) bool, as the scale of distances."""
        if not self.is_on or not normal.any():
            return
        try:
            places = np.flatnonzero(normal)
            with self._lock:
                memory = self._memory if self._bundle_id == screener.bundle_id else None
                if memory is None:
                    memory = self._memory_for(screener, embed(screened, screener, places[:1]))
                wanted = memory.normals.wanted(len(places))
                if len(wanted):
                    memory.normals.put(embed(screened, screener, places[wanted]).values)
                    self._changed = True
        except Exception as error:
            if self._throttle.allow("offer"):
                log.error("normals_not_taken", source=self._source_id, error=repr(error))

    def learn(self, verdicts: Sequence[Verdict]) -> None:
        """Turn sent samples into prototypes by the verdicts on them."""
        try:
            with self._lock:
                if self._memory is not None and self._memory.judge(verdicts, self._clock()):
                    self._changed = True
        except Exception as error:
            if self._throttle.allow("learn"):
                log.error("verdicts_not_learned", source=self._source_id, error=repr(error))

    def to_report(self) -> list[NearCopies]:
        """Return the counts of copies that the service does not have yet."""
        with self._lock:
            return self.counts.to_report()

    def confirm(self, reported: Sequence[NearCopies]) -> None:
        """Note that the service has these counts."""
        with self._lock:
            self.counts.confirm(reported)

    def apply(self, settings: RouterSettings) -> None:
        """Use other settings from now on."""
        self._settings = settings

    def status(self) -> RepeatStatus:
        """Return the number of prototypes by kind, and of the copies held since the start."""
        with self._lock:
            kinds = self._memory.counts() if self._memory is not None else dict.fromkeys(PrototypeKind, 0)
            is_ready = self._memory is not None and self._memory.normals.is_ready
            return RepeatStatus(
                is_on=self.is_on,
                is_ready=is_ready,
                cleared=kinds[PrototypeKind.CLEARED],
                condemned=kinds[PrototypeKind.CONDEMNED],
                waiting=len(self._memory.pending()) if self._memory is not None else 0,
                held=self._held,
            )

    def save(self) -> None:
        """Write the snapshot if anything changed; raises OSError."""
        with self._lock:
            if not self._changed or self._memory is None:
                return
            snapshot = RepeatSnapshot.of(self._bundle_id, self._memory, self.counts)
            self._changed = False
        save_snapshot(self._path, snapshot, self._seal)

    def _memory_for(self, screener: Screener, embedded: Embedded) -> PrototypeMemory:
        """Return the memory of a bundle; another bundle or another embedding starts a new one."""
        memory = self._memory
        if memory is None or self._bundle_id != screener.bundle_id or memory.normals.blocks != embedded.blocks:
            # A map and a thumbnail do not show whether two marks at one place are the same harmless one.
            keeps_cleared = sample_type(screener.modality).has_vectors
            normals, expires_s = NormalSample(embedded.blocks), self._settings.repeats_expire_s
            memory = PrototypeMemory(normals, expires_s, keeps_cleared=keeps_cleared)
            self._memory, self._bundle_id = memory, screener.bundle_id
        return memory

    def _mark(
        self,
        memory: PrototypeMemory,
        places: NDArray[np.intp],
        values: NDArray[np.float32],
        every_p_value: NDArray[np.float64],
    ) -> Marked:
        """Find the copies of judged samples, and plan which of them are sent in turn."""
        now_s, p_values = self._clock(), every_p_value[places]
        found = memory.match(values, p_values, now_s)
        turns: dict[int, int] = {}  # copies held since the last one was sent, as planned for this batch
        cleared, stays, sent_next = np.zeros((3, len(every_p_value)), dtype=bool)
        for place, prototype in zip(places.tolist(), found, strict=True):
            if prototype is None:
                continue
            known = id(prototype) in turns
            in_turn = turns[id(prototype)] if known else prototype.in_turn
            if prototype.sends_next(in_turn, 0.0 if known else now_s - prototype.used_at_s):
                turns[id(prototype)] = 0
                sent_next[place] = prototype.kind is PrototypeKind.CLEARED
            else:
                turns[id(prototype)] = in_turn + 1
                (cleared if prototype.kind is PrototypeKind.CLEARED else stays)[place] = True
        return Marked(cleared, stays, sent_next, places, p_values, values, found)
