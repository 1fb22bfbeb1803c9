"""Samples that end the process in which they are judged, such as by a fault of a native library.

The process records which samples it decodes or judges in a file that outlives it. Whoever starts it again tells the
next one which samples were under way at two ends in a row: those are judged alone. One that ends the process alone is
not judged again; its verdict is `undecided`.
"""

import contextlib
import os
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel

MAX_CONDEMNED = 10_000  # the newest; older ones have their verdicts
ENDS_PROCESS = "it ended the analysis process each time it was judged"
_COUNT_BYTES, _ID_BYTES = 8, 16


@dataclass
class Isolation:
    """Such samples as a process knows them; used on the event loop only.

    `record`: descriptor of the file for samples under way; None: nobody reads it. `alone`: ids of samples to be judged
    alone, `condemned`: of those that are not judged.
    """

    record: int | None = None
    alone: set[uuid.UUID] = field(default_factory=set)
    condemned: frozenset[uuid.UUID] = frozenset()
    _under_way: dict[object, Sequence[uuid.UUID]] = field(default_factory=dict)

    @contextlib.contextmanager
    def under_way(self, sample_ids: Sequence[uuid.UUID]) -> Iterator[None]:
        """Record samples while the block decodes or judges them."""
        if self.record is None:
            yield
            return
        key = object()
        self._under_way[key] = sample_ids
        _write(self.record, self._under_way.values())
        try:
            yield
        finally:
            del self._under_way[key]
            _write(self.record, self._under_way.values())


def _write(record: int, groups: Collection[Sequence[uuid.UUID]]) -> None:
    ids = b"".join(sample_id.bytes for group in groups for sample_id in group)
    with contextlib.suppress(OSError):  # a full disk: samples are judged without a record
        os.pwrite(record, len(ids).to_bytes(_COUNT_BYTES, "big") + ids, 0)


def recorded(record: int) -> set[uuid.UUID]:
    """Return the samples that a process had under way when it ended; none from a file that holds no record."""
    size = int.from_bytes(os.pread(record, _COUNT_BYTES, 0), "big")
    available = os.fstat(record).st_size - _COUNT_BYTES
    if not 0 < size <= available or size % _ID_BYTES:
        return set()
    ids = os.pread(record, size, _COUNT_BYTES)
    return {uuid.UUID(bytes=ids[at : at + _ID_BYTES]) for at in range(0, len(ids), _ID_BYTES)}


class Suspects(BaseModel):
    """Samples that were under way when processes ended; `before`: at the last end."""

    alone: set[uuid.UUID] = set()
    condemned: list[uuid.UUID] = []
    before: set[uuid.UUID] = set()

    def note_end(self, under_way: set[uuid.UUID]) -> None:
        """Take the samples that a process had under way when it ended."""
        tried = under_way & self.alone
        if len(tried) == 1:
            self.condemned = [*self.condemned, *tried][-MAX_CONDEMNED:]
            self.alone -= tried
        elif both := under_way & self.before:
            self.alone = both
        self.before = under_way
