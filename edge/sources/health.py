"""How a source is: what `vedette edge status`, /status and the problems of a device say of it."""

import threading
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """`state`: "running", or what is wrong, in a word; `detail` says more. `reconnects`: how often the source was lost
    and sought again. `skipped`: samples it gave that nobody asked for: beyond the rate, or without motion."""

    state: str = "running"
    detail: str = ""
    reconnects: int = 0
    skipped: int = 0

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong."""
        return self.state == "running"


class HealthRecord:
    """The health of one source, written by its thread and read by others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._health = SourceHealth()

    @property
    def now(self) -> SourceHealth:
        """The latest."""
        return self._health

    def is_in(self, state: str, detail: str = "", *, only_after: tuple[str, ...] = ()) -> bool:
        """Note the state; returns whether it is another than before. `only_after`: unless it is in one of these now,
        somebody else knows better, and nothing is noted."""
        with self._lock:
            before = self._health
            if only_after and before.state not in only_after:
                return False
            self._health = replace(before, state=state, detail=detail)
            return before.state != state

    def count(self, *, reconnects: int = 0, skipped: int = 0) -> None:
        """Add to the counts."""
        with self._lock:
            before = self._health
            self._health = replace(before, reconnects=before.reconnects + reconnects, skipped=before.skipped + skipped)
