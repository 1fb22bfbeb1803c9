"""Samples that end the process in which they are judged, such as by a fault of a native library.

The process records which samples it decodes or judges in a file that outlives it. Whoever starts it again tells the
next one which samples were under way at two ends in a row: those are judged alone. One that ends the process alone is
not judged again; its verdict is `undecided`.
"""

import contextlib
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

MAX_CONDEMNED = 10_000  # the newest; older ones have their verdicts
ENDS_PROCESS = "it ended the analysis process each time it was judged"
_BYTES = 8  # of a number in the record


@dataclass
class Isolation:
    """Such samples as a process knows them; used on the event loop only.

    `record`: descriptor of the file for samples under way; None: nobody reads it. `alone`: numbers of samples to be
    judged alone, `condemned`: of those that are not judged.
    """

    record: int | None = None
    alone: set[int] = field(default_factory=set)
    condemned: frozenset[int] = frozenset()
    _under_way: dict[object, Sequence[int]] = field(default_factory=dict)

    @contextlib.contextmanager
    def under_way(self, numbers: Sequence[int]) -> Iterator[None]:
        """Record samples while the block decodes or judges them."""
        key = object()
        self._under_way[key] = numbers
        self._write()
        try:
            yield
        finally:
            del self._under_way[key]
            self._write()

    def _write(self) -> None:
        if self.record is None:
            return
        numbers = [number for group in self._under_way.values() for number in group]
        os.pwrite(self.record, array("q", [len(numbers), *numbers]).tobytes(), 0)


def recorded(record: int) -> set[int]:
    """Return the samples that a process had under way when it ended."""
    numbers = array("q")
    numbers.frombytes(os.pread(record, _BYTES, 0))
    if not numbers:
        return set()
    found = array("q")
    found.frombytes(os.pread(record, numbers[0] * _BYTES, _BYTES))
    return set(found)


class Suspects:
    """Samples that were under way when processes ended."""

    def __init__(self) -> None:
        self.alone: set[int] = set()
        self.condemned: list[int] = []
        self._before: set[int] = set()

    def note_end(self, under_way: set[int]) -> None:
        """Take the samples that a process had under way when it ended."""
        tried = under_way & self.alone
        if len(tried) == 1:
            self.condemned = [*self.condemned, *tried][-MAX_CONDEMNED:]
            self.alone -= tried
        elif both := under_way & self._before:
            self.alone = both
        self._before = under_way
