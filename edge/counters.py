"""Counters that survive a restart and never decrease.

They are stored twice: in a file, written about once a second, and in the spool's transactions, so that after a crash
the counts of routed samples match the spool exactly. A start takes the larger of both.
"""

import json
import threading
from collections.abc import Mapping
from pathlib import Path

from shared.files import write_durably
from shared.logs import EventLog
from shared.status import AgentCounters

NAMES = tuple(AgentCounters.model_fields)

log = EventLog("counters")


class Counters:
    """Counts of the fields of `AgentCounters`, safe to use from any thread."""

    def __init__(self, path: Path | None = None) -> None:
        """Continue from the file at `path` if it can be read."""
        self._path = path
        self._lock = threading.Lock()
        self._save_lock = threading.Lock()
        self._values = dict.fromkeys(NAMES, 0)
        self._saved: dict[str, int] = {}
        if path is not None and path.exists():
            self.raise_to(_read(path))

    def add(self, deltas: Mapping[str, int]) -> None:
        """Add `deltas`, which are never negative."""
        with self._lock:
            for name, delta in deltas.items():
                self._values[name] += delta

    def raise_to(self, floor: Mapping[str, int]) -> None:
        """Raise each count to at least that of `floor`."""
        with self._lock:
            for name, value in floor.items():
                if name in self._values:
                    self._values[name] = max(self._values[name], value)

    def snapshot(self, plus: Mapping[str, int] | None = None) -> dict[str, int]:
        """Return all counts, with `plus` added."""
        with self._lock:
            values = dict(self._values)
        for name, delta in (plus or {}).items():
            values[name] += delta
        return values

    def save(self) -> None:
        """Write the counts to their file if they changed; raises OSError."""
        with self._save_lock:
            values = self.snapshot()
            if self._path is None or values == self._saved:
                return
            write_durably(self._path, json.dumps(values, indent=1).encode())
            self._saved = values


def _read(path: Path) -> dict[str, int]:
    try:
        values = json.loads(path.read_bytes())
        return {str(name): int(value) for name, value in values.items() if int(value) >= 0}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        log.warning("counters_unreadable", path=path, error=error, advice="they continue from the spool's copy")
        return {}
