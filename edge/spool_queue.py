"""Batches that wait in memory for their transaction of the spool."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edge.spool_store import NewSample

Callback = Callable[[], None]


@dataclass(slots=True)
class PendingBatch:
    """One batch of a source with its counts and callbacks.

    A batch with `cursors` (the positions of sources after it) is written in one transaction or not at all, because its
    source can be read again from there. Without cursors its samples may be written one after the other, or dropped.
    """

    samples: Sequence[NewSample]
    counts: Mapping[str, int]
    on_durable: Sequence[Callback] = ()
    cursors: Mapping[str, str] = field(default_factory=dict)
    waiting: int = 0  # samples neither written nor dropped

    def __post_init__(self) -> None:
        self.waiting = len(self.samples)


@dataclass(slots=True)
class _Entry:
    """Samples of one batch that wait together: all of them, or the rest of a batch that was split."""

    batch: PendingBatch
    samples: Sequence[NewSample]
    size: int  # bytes

    @property
    def can_split(self) -> bool:
        return not self.batch.cursors


@dataclass(slots=True)
class Transaction:
    """Work of one transaction. `counts` include those of batches that were split and are not all in it."""

    entries: list[_Entry]
    counts: Counter[str]

    @property
    def samples(self) -> list[NewSample]:
        """Samples to write."""
        return [sample for entry in self.entries for sample in entry.samples]

    @property
    def size(self) -> int:
        """Bytes of the samples."""
        return sum(entry.size for entry in self.entries)

    @property
    def cursors(self) -> dict[str, str]:
        """Positions of the sources after their batches."""
        return {source: text for entry in self.entries for source, text in entry.batch.cursors.items()}

    def all_counts(self) -> Counter[str]:
        """Return the counts to save with the samples."""
        counts = Counter(self.counts)
        for entry in self.entries:
            if not entry.can_split:
                counts.update(entry.batch.counts)
        counts["samples_spooled"] += sum(len(entry.samples) for entry in self.entries)
        return counts

    def finish(self) -> list[Callback]:
        """Note that the samples are written; returns the callbacks of the batches that are complete now."""
        return [callback for entry in self.entries for callback in _note_done(entry.batch, len(entry.samples))]


class PendingQueue:
    """The queue, in order of arrival. Not safe for several threads."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._counts: Counter[str] = Counter()  # of batches without cursors
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._entries or self._counts)

    @property
    def samples(self) -> int:
        """Number of samples that wait."""
        return sum(len(entry.samples) for entry in self._entries)

    @property
    def droppable_samples(self) -> int:
        """Number of samples of batches without cursors."""
        return sum(len(entry.samples) for entry in self._entries if entry.can_split)

    def add(self, batch: PendingBatch) -> None:
        """Append a batch."""
        if not batch.cursors:
            self._counts.update(batch.counts)
            if not batch.samples and not batch.on_durable:
                return
        size = sum(len(sample.data) for sample in batch.samples)
        self._entries.append(_Entry(batch, batch.samples, size))
        self.bytes += size

    def add_counts(self, counts: Mapping[str, int]) -> None:
        """Add counts without samples to the next transaction."""
        self._counts.update(counts)

    def take(self, max_bytes: int) -> Transaction:
        """Remove the work of one transaction: everything if it fits into `max_bytes`, else the most urgent part.

        That part is the most suspicious of the samples that can be written alone, then whole batches in order of
        arrival, and at least one sample or batch.
        """
        counts, self._counts = +self._counts, Counter()
        if self.bytes <= max_bytes:
            taken, self._entries, self.bytes = self._entries, [], 0
            return Transaction(taken, counts)
        chosen, size = _most_suspicious(self._entries, max_bytes)
        taken, left, blocked = [], [], False
        for entry in self._entries:
            if entry.can_split:
                inside, outside = _split(entry, chosen)
                taken += inside
                left += outside
            elif blocked or (size and size + entry.size > max_bytes):
                blocked = True  # the cursors of a source must be written in order
                left.append(entry)
            else:
                size += max(1, entry.size)
                taken.append(entry)
        self._entries = left
        self.bytes -= sum(entry.size for entry in taken)
        return Transaction(taken, counts)

    def put_back(self, transaction: Transaction) -> None:
        """Return the entries of a transaction that failed to the head of the queue, without its counts."""
        self._entries = transaction.entries + self._entries
        self.bytes += transaction.size

    def drop_beyond(self, max_bytes: int) -> tuple[int, list[Callback]]:
        """Drop the least suspicious samples of batches without cursors until these have at most `max_bytes`.

        Returns the number of dropped samples, and the callbacks of batches that have no sample left.
        """
        divisible = [entry for entry in self._entries if entry.can_split]
        excess = sum(entry.size for entry in divisible) - max_bytes
        if excess <= 0:
            return 0, []
        victims: set[int] = set()
        samples = (sample for entry in divisible for sample in entry.samples)
        for sample in sorted(samples, key=lambda sample: sample.priority, reverse=True):
            if excess <= 0:
                break
            victims.add(id(sample))
            excess -= len(sample.data)
        left, callbacks = [], list[Callback]()
        for entry in self._entries:
            dropped, kept = _split(entry, victims) if entry.can_split and entry.samples else ([], [entry])
            left += kept
            for part in dropped:
                self.bytes -= part.size
                callbacks += _note_done(part.batch, len(part.samples))
        self._entries = left
        return len(victims), callbacks


def _most_suspicious(entries: Sequence[_Entry], max_bytes: int) -> tuple[set[int], int]:
    """Return the ids of the samples with the lowest priority that fit into `max_bytes`, and their size."""
    chosen, size = set[int](), 0
    samples = (sample for entry in entries if entry.can_split for sample in entry.samples)
    for sample in sorted(samples, key=lambda sample: sample.priority):
        if chosen and size + len(sample.data) > max_bytes:
            break
        chosen.add(id(sample))
        size += len(sample.data)
    return chosen, size


def _split(entry: _Entry, chosen: set[int]) -> tuple[list[_Entry], list[_Entry]]:
    """Return the entry's samples in and out of `chosen` as entries; an entry without samples is in it."""
    inside = [sample for sample in entry.samples if id(sample) in chosen]
    if len(inside) == len(entry.samples):
        return [entry], []
    if not inside:
        return [], [entry]
    outside = [sample for sample in entry.samples if id(sample) not in chosen]
    size = sum(len(sample.data) for sample in inside)
    return [_Entry(entry.batch, inside, size)], [_Entry(entry.batch, outside, entry.size - size)]


def _note_done(batch: PendingBatch, samples: int) -> Sequence[Callback]:
    batch.waiting -= samples
    if batch.waiting:
        return ()
    callbacks, batch.on_durable = batch.on_durable, ()
    return callbacks
