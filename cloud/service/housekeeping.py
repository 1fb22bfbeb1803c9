"""Part of the service that exactly one process runs: rollouts, notices, review items, retention and removals."""

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from typing import Any

from cloud.devices import late_after_s
from cloud.evidence.bundle_facts import BundleShelf
from cloud.evidence.sides import SideReader
from cloud.service.metrics import Metrics
from cloud.service.notices.center import NoticeCenter
from cloud.service.removals import run_removals
from cloud.service.replay_counts import run_replay_counts
from cloud.service.review_items import run_review_items
from cloud.service.rollout_control import RolloutControl
from cloud.settings import CloudSettings
from cloud.store import Store
from cloud.store.heartbeat_history import thin_history
from cloud.store.near_copies import remove_old_copies
from cloud.store.registry import Registry
from cloud.store.retention import remove_old
from cloud.store.review.mutes import remove_old_mutes
from cloud.store.review.removal import remove_expired
from cloud.store.segment_upkeep import tend_segments
from shared.errors import StorageError
from shared.logs import EventLog

RETENTION_EVERY_S = 3600.0
FULL_RUN = 24  # every n-th run looks at every segment, the others at the recent ones
ROOM_EVERY_S = 60.0
_LOG = EventLog("service")


class Housekeeping:
    """Regular work over the whole store; of several processes one does it, and another follows if that ends."""

    def __init__(
        self,
        store: Store,
        settings: CloudSettings,
        metrics: Metrics,
        on_failure: Callable[[Exception], None],
        registry: Registry,
    ) -> None:
        self._store, self._retention, self._on_failure = store, settings.retention, on_failure
        self._metrics = metrics
        self._sides = SideReader(store, BundleShelf(registry.bundle))
        self._rollouts = RolloutControl(
            store,
            metrics,
            check_every_s=settings.rollouts.check_every_s,
            late_after_s=late_after_s(settings.heartbeat_s),
            on_failure=on_failure,
        )
        self._notices = NoticeCenter(store, settings.notices, settings.data_dir, on_failure)

    async def run(self) -> None:
        """Wait for the turn of this process, and work while it lasts, until cancelled."""
        while True:
            async with self._store.leading() as lost:
                _LOG.info("housekeeping_begins")
                self._metrics.leads.set(1)
                try:
                    await self._work_until(lost)
                finally:
                    self._metrics.leads.set(0)
            _LOG.warning("housekeeping_ends", advice="the connection to the store was lost; another process goes on")

    async def _work_until(self, lost: asyncio.Future[None]) -> None:
        """Work until `lost` is done; raises the error of a part that ends."""
        parts: dict[str, Coroutine[Any, Any, None]] = {
            "rollouts": self._rollouts.run(),
            "retention": self._remove_old(),
            "room": self._make_room(),
            "removals": run_removals(self._store, self._on_failure),
            "review_items": run_review_items(self._store, self._on_failure, self._sides),
            "replay_counts": run_replay_counts(self._store, self._on_failure),
            "notices": self._notices.run(),
        }
        tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]
        try:
            await asyncio.wait([*tasks, lost], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for task, error in zip(tasks, ended, strict=True):
            if isinstance(error, Exception):
                _LOG.error("part_ended", part=task.get_name(), error=error)
                raise error

    async def _remove_old(self) -> None:
        for run in itertools.count():
            try:
                days = self._retention.model_dump()
                history_days = days.pop("history_days")
                removed = await remove_old(self._store, **days)
                removed["history"] = await thin_history(self._store, history_days, time.time())
                removed["review_items"] = await remove_expired(self._store, self._retention.verdicts_days)
                removed["near_copies"] = await remove_old_copies(self._store, self._retention.verdicts_days)
                removed["mutes"] = await remove_old_mutes(self._store)
                _LOG.info("old_removed", **removed)
                tended = await tend_segments(self._store, everything=run % FULL_RUN == 0)
                _LOG.info("segments_tended", removed=tended.removed, rewritten=tended.rewritten)
            except StorageError as error:
                self._on_failure(error)
            await asyncio.sleep(RETENTION_EVERY_S)

    async def _make_room(self) -> None:
        while True:
            try:
                await self._store.make_room()
            except StorageError as error:
                self._on_failure(error)
            await asyncio.sleep(ROOM_EVERY_S)
