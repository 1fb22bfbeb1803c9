"""Interface of sources, and the pacer that keeps their rate."""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray

from edge.sources.health import SourceHealth
from shared.modality import Modality
from shared.samples import SampleBatch

_MAX_LAG_S = 1.0


class Source(Protocol):
    """Source of batches of samples, until it ends or is stopped."""

    source_id: str
    modality: Modality
    is_paced: bool  # samples come at their own rate, so a batch does not wait for the next one

    @property
    def health(self) -> SourceHealth:
        """Health of the source; safe to read from any thread."""
        ...

    def batches(self) -> Iterator[SampleBatch]:
        """Yield batches in the order of capture. A sample that cannot be read is a rejection in its batch.

        Raises DataError when the source as a whole fails.
        """
        ...


class Pacer:
    """Lets samples through at a rate, in batches of bounded size."""

    def __init__(self, rate_per_s: float, batch_size: int, stop_after_s: float, stop: threading.Event) -> None:
        self._rate_per_s, self._stop = rate_per_s, stop
        self.is_paced = rate_per_s > 0
        self.batch_size = batch_size
        self._stop_after_s = stop_after_s
        self._started_s: float | None = None
        self._origin_s, self._passed = 0.0, 0

    def wait(self, count: int) -> bool:
        """Wait until `count` more samples are due. Return False if the source must end."""
        now = time.monotonic()
        if self._started_s is None:
            self._started_s = self._origin_s = now
        if self._stop.is_set() or self._is_over(now):
            return False
        if self._rate_per_s <= 0:
            return True
        self._passed += count
        due_s = self._origin_s + self._passed / self._rate_per_s
        if now - due_s > _MAX_LAG_S:  # the agent could not keep up: continue from now, without a burst
            self._origin_s += now - due_s
            return True
        return not self._stop.wait(max(0.0, due_s - now)) and not self._is_over(time.monotonic())

    def goes_on(self) -> bool:
        """Return whether the source may continue; for a source that keeps its rate itself."""
        now = time.monotonic()
        self._started_s = now if self._started_s is None else self._started_s
        return not self._stop.is_set() and not self._is_over(now)

    def _is_over(self, now: float) -> bool:
        return self._stop_after_s > 0 and self._started_s is not None and now - self._started_s >= self._stop_after_s


class RowOrigins(Sequence[str]):
    """Texts such as "readings.csv:1042", made only when one is asked for. Rows count from 1, without the header."""

    def __init__(self, name: str, rows: NDArray[np.int64]) -> None:
        """`rows`: (batch,) the position of each sample's row, from 0; of a window, its first."""
        self._name, self._rows = name, rows

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return RowOrigins(self._name, self._rows[index])
        return f"{self._name}:{self._rows.item(index) + 1}"

    def __len__(self) -> int:
        return len(self._rows)
