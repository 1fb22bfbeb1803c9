"""Health of a source, as shown by `vedette edge status`, /status and the console."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """Health of a source at one moment.

    `state`: "running", or the fault in one word, with its `detail`. `reconnects`: number of reconnections. `skipped`:
    samples that were not screened, because of the rate or the motion gate. `left_out`: readings and records of messages
    that were left out, by reason. `clock`: by how much time stamps are off; empty if they are not.
    """

    state: str = "running"
    detail: str = ""
    reconnects: int = 0
    skipped: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    clock: str = ""

    @property
    def is_well(self) -> bool:
        """Whether the source is running."""
        return self.state == "running"


class HealthRecord:
    """Health of one source, written by its thread and read by others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._health = SourceHealth()

    @property
    def now(self) -> SourceHealth:
        """Latest health."""
        return self._health

    def is_in(self, state: str, detail: str = "", *, only_after: tuple[str, ...] = ()) -> bool:
        """Set the state, and return whether it changed.

        `only_after`: states that may be replaced; in any other state, nothing is set.
        """
        with self._lock:
            before = self._health
            if only_after and before.state not in only_after:
                return False
            self._health = replace(before, state=state, detail=detail)
            return before.state != state

    def leave_out(self, reason: str, count: int = 1, *, skipped: int = 0) -> None:
        """Count readings or records that were left out for a reason; `skipped` of them were samples."""
        if not count:
            return
        with self._lock:
            before = self._health
            left_out = {**before.left_out, reason: before.left_out.get(reason, 0) + count}
            self._health = replace(before, left_out=left_out, skipped=before.skipped + skipped)

    def set_clock(self, text: str) -> bool:
        """Set by how much time stamps are off, and return whether that began or ended."""
        with self._lock:
            before = self._health
            if text != before.clock:
                self._health = replace(before, clock=text)
            return bool(text) != bool(before.clock)

    def count(self, *, reconnects: int = 0, skipped: int = 0) -> None:
        """Add to the counts."""
        with self._lock:
            before = self._health
            self._health = replace(before, reconnects=before.reconnects + reconnects, skipped=before.skipped + skipped)
