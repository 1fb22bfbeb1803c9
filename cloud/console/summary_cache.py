"""Cache of the fleet's figures, read at most once per second for all open pages."""

import asyncio
import time

from cloud.store import Store
from cloud.store.fleet_queries import FleetSummary, fleet_summary

FRESH_S = 0.9


class SummaryCache:
    """Figures that all pages poll; a device without a heartbeat for `late_after_s` seconds counts as silent."""

    def __init__(self, store: Store, late_after_s: float) -> None:
        self.late_after_s = late_after_s
        self._store = store
        self._lock = asyncio.Lock()
        self._read_at_s = float("-inf")
        self._summary: FleetSummary | None = None

    async def summary(self) -> FleetSummary:
        """Return figures at most a second old; raises StorageError if the store cannot be read."""
        async with self._lock:
            if self._summary is None or time.monotonic() - self._read_at_s > FRESH_S:
                async with self._store.reading() as connection:
                    self._summary = await fleet_summary(connection, alive_since_s=time.time() - self.late_after_s)
                self._read_at_s = time.monotonic()
            return self._summary
