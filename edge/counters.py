"""Counts that survive a restart and never go down.

They are kept twice: in a file of their own, written every second or so, and inside the spool's transactions, so that
after a crash the count of routed samples is exactly what the spool holds. A start takes the larger of both.
"""

import json
import threading
from collections.abc import Mapping
from pathlib import Path

from shared.bundle import write_durably
from shared.logs import EventLog

NAMES = (
    "samples_screened",
    "samples_accepted",
    "samples_forwarded",
    "samples_audited",
    "samples_alarmed",
    "samples_rejected",  # could not be screened: bad input
    "samples_unscored",  # the graph gave no number: forwarded as most suspicious
    "samples_held",  # suspicious, and kept on the device by the budget or the mode
    "samples_reduced",  # travelled as JPEG, as a part or as a preview, for want of budget or link
    "samples_spooled",
    "samples_dropped",  # left the spool undelivered: full, too old, or the disk failed
    "samples_acknowledged",
    "samples_refused",  # the cloud will never take them
    "bytes_screened",
    "bytes_uploaded",
    "verdicts",
    "verdicts_anomalous",
    "alarms_sent",  # messages that a sink took; one may stand for many alarms
    "alarms_dropped",  # messages that no sink took in time
    "bundle_swaps",
    "bundle_rollbacks",
    "bundles_refused",
    "spools_set_aside",
)
WIRE_NAMES = (
    "samples_screened",
    "samples_forwarded",
    "samples_audited",
    "samples_alarmed",
    "samples_rejected",
    "samples_dropped",
    "bytes_screened",
    "bytes_uploaded",
)

log = EventLog("counters")


class Counters:
    """Named counts, safe to use from any thread."""

    def __init__(self, path: Path | None = None) -> None:
        """Continue from the file at `path`, if there is one that can be read."""
        self._path = path
        self._lock = threading.Lock()
        self._save_lock = threading.Lock()
        self._values = dict.fromkeys(NAMES, 0)
        self._saved: dict[str, int] = {}
        if path is not None and path.exists():
            self.raise_to(_read(path))

    def add(self, deltas: Mapping[str, int]) -> None:
        """Count; a delta is never negative."""
        with self._lock:
            for name, delta in deltas.items():
                self._values[name] += delta

    def raise_to(self, floor: Mapping[str, int]) -> None:
        """Let no count be below that of `floor`."""
        with self._lock:
            for name, value in floor.items():
                if name in self._values:
                    self._values[name] = max(self._values[name], value)

    def snapshot(self, plus: Mapping[str, int] | None = None) -> dict[str, int]:
        """All counts as they are, with `plus` added."""
        with self._lock:
            values = dict(self._values)
        for name, delta in (plus or {}).items():
            values[name] += delta
        return values

    def save(self) -> None:
        """Write the counts to their file if they changed; raises OSError when the disk refuses."""
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
