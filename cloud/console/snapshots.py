"""One snapshot of the store for all open pages, read at most once a second and only after a change."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from cloud.console.views import summary_view
from cloud.store import Store
from cloud.store.fleet_queries import FleetSummary, fleet_summary
from cloud.store.review.progress import review_version

FRESH_S = 0.9
UNCHANGED_S = 5.0  # figures that change with the time alone, such as silent devices
MAX_SHARED = 256

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Figures of the fleet, and the same as pages show them; a later change of the store has a higher number.

    `review`: version of the review items.
    """

    number: int
    summary: FleetSummary
    view: dict[str, Any]
    review: int


class Snapshots:
    """Newest snapshot of the devices of some sites (none: all), and results that their pages share.

    A device without a heartbeat for `late_after_s` seconds counts as silent.
    """

    def __init__(self, store: Store, late_after_s: float, sites: tuple[str, ...] = ()) -> None:
        self.late_after_s, self.sites = late_after_s, sites
        self._store = store
        self._lock = asyncio.Lock()
        self._snapshot: Snapshot | None = None
        self._version: int | None = None
        self._read_s = self._checked_s = float("-inf")
        self._failure: Exception | None = None
        self._shared: dict[Hashable, asyncio.Task[Any]] = {}
        self._shared_number = 0

    async def newest(self) -> Snapshot:
        """Return a snapshot at most a second old; raises StorageError if the store cannot be read.

        A failure is raised to every caller for the same time, so that they do not wait for the store one by one.
        """
        async with self._lock:
            if time.monotonic() - self._checked_s > FRESH_S:
                self._failure = None
                try:
                    self._snapshot = await self._read()
                except Exception as error:
                    self._failure = error
                self._checked_s = time.monotonic()
            if self._failure is not None:
                raise self._failure
            return cast(Snapshot, self._snapshot)

    async def shared(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `read` for the newest snapshot; pages with the same key share one call."""
        snapshot = await self.newest()
        if snapshot.number != self._shared_number or len(self._shared) >= MAX_SHARED:
            self._shared, self._shared_number = {}, snapshot.number
        shared = self._shared
        if key not in shared:
            shared[key] = asyncio.ensure_future(read())
        task = shared[key]
        try:
            return cast(T, await asyncio.shield(task))
        except Exception:
            shared.pop(key, None)
            raise

    async def _read(self) -> Snapshot:
        """Return the last snapshot while the store has not changed, else a new one."""
        version, last = self._store.version(), self._snapshot
        if last is not None and version == self._version and time.monotonic() - self._read_s < UNCHANGED_S:
            return last
        now_s = time.time()
        async with self._store.reading() as connection:
            summary = await fleet_summary(connection, alive_since_s=now_s - self.late_after_s, sites=self.sites)
            review = await review_version(connection)
        read = (summary, review)
        unchanged = last is not None and version == self._version and read == (last.summary, last.review)
        self._version, self._read_s = version, time.monotonic()
        if last is not None and unchanged:
            return last
        return Snapshot(last.number + 1 if last is not None else 1, summary, summary_view(summary, now_s), review)
